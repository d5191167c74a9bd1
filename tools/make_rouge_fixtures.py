#!/usr/bin/env python3
"""Make tests/data/rouge: pairs of texts with their scores by the rouge_score package, and words with their stems.

    python tools/make_rouge_fixtures.py

    pairs.jsonl  a line per pair: {"prediction", "reference", "f1": [rouge1, rouge2, rougeL, rougeLsum]}
    stems.txt    a line per stem by NLTK's PorterStemmer in its default mode: the stem, then its words

Ran with: CPython 3.11.7, rouge_score 0.1.2, nltk 3.10.4; seed 7.  The texts are put together here, from the words and
sentences below; both are stripped before they are scored, as Hugging Face's evaluation scripts do.
"""
import json
import os
import random

from nltk.stem.porter import PorterStemmer
from rouge_score import rouge_scorer

OUT = os.path.join(os.path.dirname(__file__), "..", "tests", "data", "rouge")
KINDS = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
STEMS = """
abandon abil absorb accept accord accus achiev act adapt add adjust admir admit adopt advanc advis agree aim allow amaz
analog annoy answer apolog appear appl argu arrang arriv ask assess attach attend avoid bab back bak balanc bar bath beat
beg believ belong bless blind boil book borrow bounc bow box brak break breath bright broad brush bubbl build bump burn bus
buy calculat call camp cancel capital car carr caus cenc challeng chang charg check cheer chew chok civil claim clean clear
clos coach collect color com command communicat compar compet complain complet concentrat concern condition confess conform
confus connect consider consist contain continu controll cook cop correct cost cough count cover crack crash crawl creat
creep critic cross crush cultur cur curl curv cycl damag danc dar decay deceiv decid decis decorat defend defin delay delight
deliver depend describ desert deserv destroy detect develop differ digit direct disagree discover divid doubl doubt drag
drain dream dress drip drop drown drum dry dust earn econom educat effect electr embarrass employ empt encourag end enjoy
enter entertain escap examin excit excus exerc exist expand expect explain explod extend fac fad fail fanc fasten fax fear
feed fenc fetch feudal fil fill fin fir fit fix flap flash float flood flow flower fly fold follow fool forc form found
fram free frighten fr fry function gather gaz general geolog glow glu govern grab grat greas greet grin grip groan guarantee
guard guess guid hammer hand handl hang happ harass harm hat haunt heal heap heat help hesit hol hook hop hospital hover hug
hum hunt hurr identif ignor imagin impress improv includ increas infer influenc inform inject injur instruct intend interest
interfer interrupt introduc invent invit irritat itch jail jam jog join jok judg juggl jump kick kill kiss kneel knit knock
knot label land last laugh launch learn level licens lick lie lighten lik list listen liv load lock long look lov magic
manag march mark marr match mat matter measur meddl melt memor mend mess milk min miss mix moan moor motor mourn mov mudd
mug multipl murder nail nam nation need nest nod normal not notic number obey object observ obtain occur offend offer open
operat order overflow ow own pack paddl paint park part pass past pat paus peck pedal peel peep perform permit phon pick
pinch pin plac plan plant plaster play pleas plug point pok polish polit pop possess post pour practic pray preach preced
predicat prefer prepar present preserv press pretend prevent prick print probab produc program promis protect provid pull
pump punch punctur punish push question queue rac radical radiat rain rais reach real realiz reason receiv recogn record
reduc reflect refus regret reign reject rejoic relat relax releas rel remain remember remind remov repair repeat replac repl
report reproduc request rescu retir return rhym rins risk rob rock roll rot rub ruin rul rush sack sail sam satisf sav saw
scar scatter scold scorch scrap scratch scream screw scribbl scrub seal search sensibil sensitiv separat serv settl shad shar
shav shelter shiver shock shop shrug sigh sign signal sin sip sk skip slap slip slow smash smell smil smok snatch sneez sniff
snor snow soak social sooth sound spar spark sparkl spell spill spoil spot spray sprout squash squeak squeal squeez stain
stamp star stat stay steer step stir stitch stop stor strap strengthen stretch strip stroke stuff subtract succeed suck suffer
suggest suit suppl support suppos surpris surround suspect suspend switch talk tam tap tast teas telephon tempt terrif test
thank thaw theolog tick tickl tie tim tip tir touch tour tow trac trad train transport trap travel treat trembl trick trip trot
troubl trust try tug tumbl turn twist typ undress unit unlock unpack us vanish vietnam vile visit wail wait walk wander want
warm warn wash wast watch water wav weigh welcom whin whip whirl whisper whistl wink wip wish wobbl wonder work worr wrap
wreck wrestl wriggl yawn yell zip zoom
""".split()
ENDINGS = ["", "s", "es", "ed", "ing", "er", "ly", "ation", "ational", "ment", "ness", "able", "ive", "ies", "y", "fully",
           "ization", "ousness", "ically"]
ODD = """
sky skies dying lying tying news innings inning outings outing cannings canning howe proceed exceed succeed die dies died
ties tied lies lied spied spies flies cried feed agreed bled sing singing ring bed red eed seed freed y yes yay yyyy syzygy
toy toys enjoy enjoying say says saying sayyid by my dyed eye eyes eyed employ employed gayly happy happily sadly fly fry
conflated troubled sized hopping tanned falling hissing fizzed failing filing rational relational conditional valenci
hesitanci digitizer conformabli radicalli sensationally occasionally nationally differentli vileli analogousli predication operator
feudalism decisiveness hopefulness callousness formaliti sensitiviti sensibiliti triplicate formative formalize electriciti
electrical hopeful goodness revival allowance inference airliner gyroscopic adjustable defensible irritant replacement
adjustment dependent adoption homologou communism activate angulariti homologous effective bowdlerize probate rate cease
controll roll rolls controlling geology theology archaeology philology logi apologies analogy biology fully wonderfully
skillfully faithfully beautifully ali rally really orally totally usually equally finally ball balls calls called ion lion
million nation nations passion session vision decision region religion opinion union station ration sion tion aion
at ate ates ated ating iz ize izes bl ble bles able ables oo oos ooh ear ears aa eeee ing ings inged ed eds eded sses ss sss
ssss as is us was this his gas bus buses has does goes 2nd 3rd 1990s 1980s 100ing 1ed 42 007 a1b2ed x86ing mp3s 4ever
b2bing wiz wow wowed waxed boxed boxes snowed snowing owing fixing trying obeyed obeying tee teed bee bees beed used using
""".split()
SENTENCES = """The shop opens at nine in the morning and closes at six in the evening.
On Sundays the shop is closed, but the bakery next door opens at ten.
Please answer politely, in one short sentence, and never promise a discount!
If the customer asks about an order, ask for the order number first.
She was running quickly through the fields while the dogs were barking.
Running a quick test is easier than arguing about results.
The relational operators were differently defined in 3 languages: C, Ada & Lisp.
It's what they're saying: we've opened; I'll answer, you'd ask -- don't promise.
Numbers such as 3.14159, 1,000,000 and 2024-05-06 are split into parts.
The quick brown fox jumps over the lazy dog, and the lazy dog sleeps.
Communism, socialism and feudalism are nouns; communists are people.
Visit https://www.example.com/a_b?c=d&e=f or mail to Jane.Doe@example.org today.
A dependable adjustment of the controlling valve prevents irritating hesitation.
Skies were grey; the sky was lying low, and the innings were short.
The hopefulness of the formalities was electrifying, yet triplicate forms remained.
Translate the sentence into French, then list five synonyms of happy.
1. Eat more vegetables. 2. Sleep eight hours. 3. Exercise regularly.
def add(a, b): return a + b  # adds two numbers
To be, or not to be, that is the question.
The the the the the; a a a a a.""".split("\n")
ODD_TEXTS = ["", " ", "\n", "\n\n\n", ".", "?!...", "a", "A", "I", "42", "the", "the the", "\u0130stanbul \u0130\u0130", "istanbul i",
             "i stanbul i i", "\u212aelvin \u212a 300\u212a", "kelvin k 300k", "\u212babc \u00c5bc", "Stra\u00dfe STRASSE stra\u1e9ee",
             "caf\u00e9 cafe\u0301 CAF\u00c9", "na\u00efve co\u00f6perate \ufb01nd \ufb02y", "\uff21\uff22\uff23 \uff11\uff12\uff13 ABC 123",
             "\u65e5\u672c\u8a9e the \u4e2d\u6587 text", "\u05e9\u05dc\u05d5\u05dd peace", "\U0001f680 rocket \U0001f469\u200d\U0001f467 family",
             "zero\u200bwidth soft\u00adhyphen", "nb\u00a0space thin\u2009space", "\u2028line\u2029paragraph\u0085next", "tab\tvert\x0bfeed\x0creturn\rend",
             "\u0391\u03a3 \u03c3\u03c2 sigma", "\u0131 dotless i", "\u0149 n", "\u01c4 dz", "x\u0307 i\u0307", "\u1d2c\u2090 mod",
             "\u24d0\u24b6 circled", "\u00b2\u00b3\u00b9 super \u00bd half", "\u0661\u0662\u0663 arabic 123", "snake_case CamelCase kebab-case",
             "e.g. i.e. U.S.A. Ph.D.", "don't DON'T don\u2019t", "a\n\nb\n\n\nc", "\nleading\ntrailing\n", "same\nsame\nsame", "\ufeffbom"]


def mutated(rng, words, pool):
    """words with some left out, doubled, swapped, replaced or given another case."""
    out = []
    for w in words:
        what = rng.random()
        if what < 0.12:
            continue
        out.append(rng.choice(pool) if what < 0.24 else w.upper() if what < 0.28 else w)
        if what > 0.95:
            out.append(w)
    if len(out) > 3 and rng.random() < 0.5:
        i, j = rng.randrange(len(out)), rng.randrange(len(out))
        out[i], out[j] = out[j], out[i]
    return out


def prose(rng):
    a = rng.sample(SENTENCES, rng.choice([1, 1, 1, 2]))
    pool = " ".join(SENTENCES).split()
    b = [" ".join(mutated(rng, s.split(), pool)) for s in a]
    rng.shuffle(b)
    return " ".join(b), " ".join(a)


def lines(rng, count, width, letters):
    """Lines of few different words, so that there are many longest subsequences to choose from."""
    def side():
        n = rng.randint(1, count)
        return "\n".join(" ".join(rng.choice(letters.split()) for _ in range(rng.randint(0, width))) for _ in range(n))
    return side(), side()


def make_pairs():
    rng = random.Random(7)
    pairs = [(a, a) for a in ODD_TEXTS] + [(a, rng.choice(ODD_TEXTS)) for a in ODD_TEXTS]
    pairs += list(zip(ODD_TEXTS[12:], ODD_TEXTS[13:])) + [("", "the shop"), ("the shop", ""), ("...", "the shop")]
    pairs += [prose(rng) for _ in range(60)]
    pairs += [(p.replace(" the ", "\nthe "), r.replace(" the ", "\nthe ")) for p, r in (prose(rng) for _ in range(20))]
    pairs += [lines(rng, 5, 8, "a b c d") for _ in range(64)] + [lines(rng, 3, 80, "a b") for _ in range(5)]
    pairs += [lines(rng, 2, 150, "a b c d e f g h") for _ in range(3)] + [lines(rng, 25, 4, "x y z") for _ in range(6)]
    pairs += [lines(rng, 1, n, "1 2 3 4 5") for n in (63, 64, 65, 66, 127, 128, 129, 130, 200, 300)]
    words = "0 1 00 01 10 11 1.0 1,0 3e5 1990s".split()
    pairs += [(" ".join(rng.choices(words, k=12)), " ".join(rng.choices(words, k=9))) for _ in range(15)]
    return [(p.strip(), r.strip()) for p, r in pairs]


def main():
    os.makedirs(OUT, exist_ok=True)
    scorer = rouge_scorer.RougeScorer(KINDS, use_stemmer=True)
    pairs = make_pairs()
    assert len(pairs) >= 300
    with open(os.path.join(OUT, "pairs.jsonl"), "w", encoding="utf-8") as f:
        for prediction, reference in pairs:
            s = scorer.score(reference, prediction)
            row = {"prediction": prediction, "reference": reference, "f1": [round(s[k].fmeasure, 8) for k in KINDS]}
            f.write(json.dumps(row, separators=(",", ":")) + "\n")
    stemmer = PorterStemmer()
    rng = random.Random(7)
    made = {w + e for w in STEMS for e in rng.sample(ENDINGS, 3)}
    words = {}
    for w in sorted(made | set(ODD)):
        words.setdefault(stemmer.stem(w), []).append(w)
    with open(os.path.join(OUT, "stems.txt"), "w", encoding="ascii") as f:
        f.writelines(f"{stem} {' '.join(of)}\n" for stem, of in sorted(words.items()))
    print(len(pairs), "pairs,", len(made | set(ODD)), "words")


if __name__ == "__main__":
    main()
