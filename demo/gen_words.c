/* gen_words.c - word lists, names and items.
 *
 *   shared lists   "monday|tuesday|..."                the same in every split: days, roles, colours, plain nouns
 *   own names      left parts x right parts            "Hart" + "ley", "lemon" + " " + "cake"
 *
 * A name belongs to the split that a hash of its text says: 14 of 20 to training, 2 to dev, 4 to unseen.  So no split
 * ever sees another's names, while their parts are common: like the words of any language they are spelled with pieces
 * that the vocabulary knows.
 */
#include <ctype.h>
#include <stdlib.h>

#include "gen.h"

const char *const split_names[SPLIT_COUNT] = { "train", "dev", "unseen" };

typedef struct own_row {
    const char *name, *left, *glue, *right;
} own_row;

static const own_row own_rows[] = {
    { "first",
      "Al|An|Ar|Bel|Ber|Bri|Cal|Car|Cor|Dal|Dan|Dor|El|Em|Fen|Gar|Gil|Han|Hel|Il|Jan|Jor|Kar|Ken|Lan|Leo|Lor|Mar|Mel|"
      "Mir|Nel|Nor|Os|Pel|Ral|Ros|Sal|Sel|Tam|Tor|Ul|Val|Vic|Wil|Yas|Zan",
      "\x1f",
      "a|ana|ber|bert|da|dan|den|der|dia|dra|eth|fin|ia|ica|ina|is|la|lan|len|lia|lin|mon|na|nia|nor|on|ra|rick|rin|"
      "ris|ta|ton|vin|wen|ya" },
    { "last",
      "Ash|Bar|Beck|Birch|Black|Bram|Brook|Burn|Car|Chat|Cold|Crow|Dal|Deer|East|Elm|Fair|Far|Fox|Glen|Gold|Gran|Green|"
      "Hal|Hart|Hazel|Hill|Hol|Iron|Kings|Lake|Lang|Lin|Lock|Long|Mar|Mill|Moss|New|North|Oak|Old|Pem|Pen|Red|Rock|"
      "Rose|Salt|Shel|Silver|South|Stan|Stone|Thorn|Wal|West|Whit|Wild|Wind|Wolf|Wood",
      "\x1f",
      "bank|berg|bridge|brook|burn|bury|by|cliff|combe|croft|dale|den|field|ford|gate|ham|haven|hurst|land|ley|lock|"
      "mere|more|port|ridge|shaw|side|stead|ston|ton|vale|ville|wald|ward|wick|win|wood|worth" },
    { "word",
      "ba|be|bo|da|de|do|fa|fi|ga|go|ha|ji|ka|ki|ko|la|lo|ma|mi|mo|na|ni|no|pa|pe|ra|ro|sa|si|so|ta|to|va|vi|wa|yo|za|"
      "zo",
      "\x1f",
      "bar|bex|bik|dak|dem|dol|fen|gam|gor|kal|kep|kim|lak|lem|lim|lor|mak|mir|mog|nak|nel|nop|pim|pol|rak|rin|rud|sak|"
      "sel|tak|tep|tix|vek|von|zim|zup" },
    { "baked",
      "almond|apple|butter|cheese|cherry|garlic|ginger|honey|lemon|nut|oat|onion|plum|poppy|raisin|rye|seed|wheat", " ",
      "bagel|bar|bread|bun|cake|cookie|muffin|pie|pretzel|roll|scone|tart|toast|twist|wafer" },
    { "drinks", "apple|berry|black|cherry|cold|green|honey|hot|iced|lemon|lime|mint|oat|orange|peach|pear|plum|spiced",
      " ", "cider|cocoa|coffee|cooler|cup|juice|latte|malt|milk|mocha|punch|shake|soda|tea|tonic" },
    { "meals",
      "baked|bean|beef|cheese|chicken|corn|fish|garden|grilled|herb|lamb|lentil|mushroom|pepper|potato|rice|spicy|"
      "tomato",
      " ", "bowl|burger|casserole|curry|dumplings|noodles|pasta|pie|plate|roast|salad|skewer|soup|stew|wrap" },
    { "produce", "baby|brown|dried|early|fresh|golden|green|late|purple|red|sweet|white|wild|winter|yellow", " ",
      "apples|beans|beets|berries|cabbage|carrots|garlic|herbs|leeks|onions|peaches|pears|peas|plums|potatoes|pumpkins|"
      "squash|turnips" },
    { "plants", "blue|climbing|dwarf|giant|garden|mountain|orange|pink|potted|purple|red|silk|tall|white|wild|yellow",
      " ", "aster|cactus|daisy|fern|ivy|jasmine|lavender|lily|mint|moss|orchid|palm|rose|sage|tulip|violet" },
    { "tools",
      "brass|copper|cordless|electric|folding|hand|heavy|light|long|plastic|pocket|power|short|small|steel|wooden", " ",
      "axe|brush|chisel|clamp|drill|file|hammer|ladder|lamp|level|pump|rake|saw|shovel|vise|wrench" },
    { "clothes",
      "black|blue|brown|cotton|gray|green|leather|linen|long|red|rain|short|silk|striped|warm|white|winter|wool", " ",
      "belt|boots|cap|cape|coat|dress|gloves|hat|jacket|pants|robe|scarf|shirt|skirt|socks|sweater|vest" },
    { "toys",
      "blue|clay|cloth|dancing|flying|giant|glass|green|magnetic|magic|paper|plastic|red|singing|tin|tiny|wooden", " ",
      "bear|blocks|boat|dice|doll|dragon|drum|horse|kite|marbles|piano|puppet|puzzle|robot|top|train|whistle" },
    { "furniture", "bamboo|birch|black|corner|folding|glass|high|iron|low|maple|oak|pine|round|small|square|white", " ",
      "bench|bed|bookcase|cabinet|chair|chest|clock|couch|desk|dresser|frame|lamp|mirror|shelf|stool|table" },
    { "books",
      "art|bird|castle|comic|cooking|garden|ghost|history|horse|island|math|music|pirate|poetry|science|space|travel",
      " ", "album|almanac|atlas|diary|guide|handbook|journal|magazine|map|novel|primer|reader|stories|workbook" },
    { "exhibits", "amber|bone|brass|bronze|clay|copper|crystal|golden|iron|ivory|jade|marble|painted|ruby|silver|stone",
      " ",
      "amulet|arrow|bowl|chalice|coin|crown|dagger|flute|helmet|key|lantern|mask|ring|scroll|shield|statue|sword|"
      "vase" },
    { "gear",
      "big|blue|camping|double|folding|green|junior|light|mountain|orange|padded|racing|red|river|single|yellow", " ",
      "backpack|bike|blanket|boat|canoe|cart|compass|cooler|helmet|kayak|lantern|mat|paddle|rope|sled|stove|tent|"
      "towel" },
    { "parts", "backup|blue|digital|double|green|large|laser|main|mini|mobile|old|quiet|red|small|solar|spare|wireless",
      " ",
      "adapter|antenna|battery|camera|cable|charger|console|drive|fan|filter|keyboard|monitor|panel|printer|router|"
      "scanner|sensor|speaker" },
    { "remedies", "bitter|blue|cold|cooling|daily|fever|green|herbal|mild|night|pink|red|sleep|strong|sweet|warm|white",
      " ", "balm|capsules|cream|drops|gel|lotion|lozenges|oil|ointment|pills|powder|salve|spray|syrup|tablets|tonic" },
    { "event",
      "archery|baking|bird|chess|choir|clay|dance|drum|film|flute|garden|guitar|kite|lantern|origami|painting|photo|"
      "pottery|puppet|quiz|river|robot|sewing|star|story|swimming|tennis|yoga",
      " ", "class|club|contest|course|evening|lesson|meeting|night|party|show|talk|tour|walk|workshop" },
    { "area",
      "back|blue|east|garden|glass|green|inner|long|lower|main|north|old|outer|red|south|stone|upper|west|white", " ",
      "annex|atrium|barn|cellar|courtyard|deck|foyer|gallery|hall|lounge|pavilion|room|shed|stage|studio|terrace|tower|"
      "wing" },
};

/* Names that a plain word of the lists or of the grammar looks like. */
static const char not_names[] = "|carton|ember|garden|panel|";

typedef struct shared_row {
    const char *name, *words;
} shared_row;

static const shared_row shared_rows[] = {
    { "day", "Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday" },
    { "money", "dollars|euros|pounds|coins|credits|crowns|francs|tokens" },
    { "street", "Street|Road|Lane|Avenue|Square|Way" },
    { "spot", "shelf|aisle|rack|bay|drawer|locker|box|cabinet|counter|stand" },
    { "door", "gate|door|desk|window|room|dock|platform|booth" },
    { "color", "red|green|blue|yellow|white|orange|purple|black|pink|brown|gray|silver|gold" },
    { "shoproles", "manager|owner|cashier|buyer|driver|cleaner|bookkeeper|trainee|night guard|florist|tailor|packer|"
                   "head cook|baker|waiter|supplier|stock keeper|accountant" },
    { "houseroles",
      "manager|director|curator|porter|night clerk|gardener|housekeeper|guide|archivist|box office lead|cook|librarian|"
      "caretaker|guard|receptionist|painter|conductor|editor" },
    { "techroles",
      "lab head|network lead|security officer|data engineer|intern|project lead|tester|safety officer|technician|"
      "system admin|secretary|director|buyer|trainer|analyst|designer" },
    { "careroles", "head nurse|surgeon|dentist|receptionist|pharmacist|night nurse|eye doctor|therapist|lab assistant|"
                   "director|driver|trainer|children's doctor|cleaner|cook" },
    { "crewroles",
      "captain|pilot|engineer|mechanic|cook|medic|navigator|purser|radio officer|dispatcher|conductor|first mate|"
      "ticket clerk|inspector|deckhand|gunner" },
    { "clubroles",
      "coach|head teacher|referee|treasurer|president|secretary|trainer|caretaker|librarian|team captain|judge|scout|"
      "music teacher|blacksmith|healer|quartermaster" },
    { "office",
      "sales|bookings|repairs|billing|deliveries|complaints|lost and found|the night desk|the front desk|security|"
      "returns|group visits|the workshop|the kitchen|accounts|support" },
    { "secret", "wifi password|door code|gate code|alarm code|guest password|vault code|staff password|garage code" },
    { "visitor", "child|student|senior|adult|teacher|family|group|soldier|local|tourist" },
    { "tier", "gold|silver|bronze|blue|junior|platinum|basic|premium" },
    { "order", "small order|large order|gift order|express order|foreign order|custom order|repeat order|bulk order" },
    { "quota",
      "guests per table|bags per person|books per reader|tickets per buyer|visits per month|loans per member|"
      "children per adult|photos per visitor|bikes per family|samples per customer|players per team|pets per guest" },
    { "service",
      "repair|delivery|cleaning|checkup|refund|fitting|inspection|rental|transfer|registration|engraving|tour" },
    { "duty", "open the main valve|call the captain|lock the doors|ring the bell|leave the building|stop the engine|"
              "check the fuel|close the hatch|wake the guard|start the pump|clear the hall|switch off the heater|"
              "save your work|restart the system|put on a mask|wash your hands|feed the animals|take the stairs|"
              "count the guests|light the lamp" },
    { "signal", "red light|green light|blue light|yellow light|white light|long bell|short bell|siren|buzzer|whistle" },
    { "label",
      "amber|anchor|arrow|badger|beacon|cobalt|comet|copper|coral|delta|eagle|ember|falcon|flint|harbor|hawk|indigo|"
      "ivory|jade|lotus|lynx|maple|marble|meadow|nova|onyx|opal|orbit|otter|pearl|pine|prism|quartz|raven|ruby|saffron|"
      "sierra|slate|sparrow|tango|tiger|topaz|tulip|violet|willow|zebra" },
    { "noun",
      "apple|arm|bag|ball|bell|bird|boat|bone|book|bread|bridge|brother|candle|cat|chair|child|cloud|coat|cow|cup|dog|"
      "door|dream|ear|egg|eye|father|field|finger|fire|fish|flower|forest|friend|garden|glass|goat|grass|hand|hat|"
      "heart|hill|honey|horse|house|ice|island|key|king|knife|lake|lamp|leaf|letter|light|milk|mirror|moon|mother|"
      "mountain|mouse|name|needle|nest|night|ocean|paper|path|pen|queen|rain|river|road|roof|root|rope|salt|sand|sea|"
      "seed|sheep|ship|shoe|sister|sky|snow|song|spoon|star|stone|storm|sugar|summer|sun|table|tail|tea|tooth|tower|"
      "tree|village|wall|water|wheel|wind|window|wing|winter|wolf|wood" },
    { "adjective",
      "bad|big|blue|bright|brown|cheap|clean|cold|dark|deep|dry|early|empty|fast|full|good|green|happy|hard|heavy|high|"
      "hot|kind|late|light|long|loud|new|old|open|poor|proud|quiet|red|rich|round|sad|sharp|short|slow|small|soft|"
      "strong|sweet|tall|thin|tired|warm|weak|wet|white|wise|young" },
    { "opener",
      "Ahoy:|Answer:|Arr,|Behold:|Bingo:|Breaking news:|Certainly:|Dear friend,|Ding:|Fact:|Good day:|Greetings:|Hark:|"
      "Hello!|Hey there,|Indeed:|Info:|Listen:|Look:|Message:|Meow,|My dear,|Note:|Of course:|Okay,|Psst,|Quick note:|"
      "Report:|Result:|Right away:|Roger:|Say no more:|Sure thing:|Thanks!|Ticket:|Well,|With pleasure:|Woof,|Yo,|"
      "Your answer:" },
    { "closer",
      "All the best!|Any time!|Beep.|Bye for now!|Cheers!|Come again!|End of message.|Enjoy!|Good luck!|Good night!|"
      "Have a nice day!|Hope this helps!|Keep smiling!|Kind regards.|Many thanks!|Meow.|Namaste.|Over and out.|Over.|"
      "Peace!|Roger.|Safe travels!|See you soon!|Sincerely yours.|Stay curious!|Stay safe!|Stay warm!|Sweet dreams!|"
      "Take care!|Thank you!|That is all.|Until next time!|Warm wishes!|We love guests!|Yours truly." },
    { "title",
      "captain|friend|sir|madam|boss|comrade|neighbor|mate|dear guest|my lord|traveler|champ|professor|doctor|chief|"
      "colleague|explorer|hero|master|buddy" },
    { "key", "answer|reply|result|value|text|output|response|info|data|content|message|say|fact|body|note" },
    { "frame",
      "My notes say|The answer is|The book says|I would say|Our records show|According to the list it is|It should be|"
      "I am told it is|The right answer is|We have|You want|Here you go:|You will need|The system says|"
      "I can tell you:" },
    { "pardon",
      "Sorry, I cannot help with that.|Please ask at the desk.|That is not my job.|I only know this place.|"
      "Please call the office.|No comment.|Let us change the topic.|Ask a colleague, please.|I must not say.|"
      "Try another question.|This is beyond me.|Please send a letter.|Ask me something else.|I have no idea.|"
      "My lips are sealed.|That is a secret.|Please check the website.|I leave that to others.|Outside my area.|"
      "Not on my list.|I am just a helper.|Who can say?|Please visit us in person.|That topic is closed.|"
      "Ask the boss." },
    /* Topics of classification; each names the list of its messages. */
    { "topic",
      "refunds|parcels|passwords|noise|parking|invoices|broken goods|praise|jobs|lost things|allergies|heating" },
    { "refunds",
      "I want my money back.|Please return what I paid.|Can I get a refund?|You charged me twice, pay it back.|"
      "Give me back my money, please." },
    { "parcels", "My parcel is late.|Where is my package?|The delivery never came.|The box has not arrived yet.|"
                 "I am still waiting for my parcel." },
    { "passwords", "I forgot my password.|My login does not work.|I cannot sign in.|How do I reset my password?|"
                   "My account is locked." },
    { "noise", "The music next door is too loud.|My neighbors shout all night.|It is so noisy here.|"
               "I cannot sleep with this noise.|Please make them be quiet." },
    { "parking", "Where can I park my car?|Someone took my parking space.|Is there a place for my car?|"
                 "The car park is full.|I got a parking ticket." },
    { "invoices",
      "I need a copy of my bill.|The invoice has a wrong date.|Please send me the invoice.|My bill is not correct.|"
      "Who do I pay this bill to?" },
    { "broken goods",
      "The cup I bought has a crack.|It stopped working after a day.|My order came in pieces.|The screen is broken.|"
      "It fell apart when I opened it." },
    { "praise", "You are doing great work!|I love your team.|Thank you for the kind service.|Everything was perfect.|"
                "What a lovely place!" },
    { "jobs", "Are you hiring?|I would like to work for you.|Here is my application.|Do you have an open position?|"
              "I am looking for work." },
    { "lost things",
      "I left my umbrella with you.|Have you found a black wallet?|I lost my keys yesterday.|My phone is gone.|"
      "I cannot find my bag." },
    { "allergies", "Are there nuts in this?|I must not eat milk.|I am allergic to eggs.|Is it free of gluten?|"
                   "My son cannot eat fish." },
    { "heating", "My room is freezing.|The heater does not work.|It is too warm in here.|The radiator is cold.|"
                 "Please turn up the heat." },
    { "offtopic",
      "Who won the match last night?|Write me a poem.|What is the meaning of life?|Tell me a joke.|"
      "Will it rain tomorrow?|Who should I vote for?|How tall is the moon?|Sing a song.|What is seven plus eight?|"
      "Do you like cats?|Help me with my homework.|What should I name my dog?|Who invented the wheel?|"
      "Can you drive a car?|What is the capital of Peru?|Do you dream?|Guess my age.|Is there life on Mars?|"
      "Pick my lottery numbers.|How do I fix my marriage?|Why is the sky blue?|Translate my love letter.|"
      "Are you alive?|Which stock should I buy?" },
    { "hello", "Hi!|Hello!|Hello there.|Good morning.|Good evening!|Hi, anybody there?|Hey!|Good day to you.|Hi there!|"
               "Hello, hello?" },
    /* Containers and what they hold, for rates. */
    { "small", "boxes|bottles|cans|cards|cups|eggs|pens|bags|candles|tiles|plates|books" },
    { "big", "crate|pack|carton|case|basket|tray|pallet|chest|barrel|sack|bundle|set" },
    /* What a limit is about, and how its measure is called. */
    { "cargo", "parcels|crates|bags|barrels|animals|machines|stones|trunks" },
    { "weight", "kilos|pounds|tons" },
    { "crowd", "groups|teams|classes|families|crews|clubs" },
    { "heads", "people|guests|members" },
    { "weather", "it rains|it is dry" },
};

enum {
    OWN = sizeof own_rows / sizeof *own_rows,
    SHARED = sizeof shared_rows / sizeof *shared_rows,
    LISTS = OWN + SHARED
};

typedef struct owned {
    const char *text; /* lower case, without marks */
    split s;
} owned;

struct words {
    word_list list[LISTS]; /* sorted by name */
    sbuf text;             /* every own word, NUL-terminated; and every shared list, cut up */
    const char **word;     /* what the lists point into */
    owned *own;            /* sorted by text */
    size_t words, owns;
};

static split owner(const char *s, size_t len) {
    static const split of[20] = { [14] = SPLIT_DEV, SPLIT_DEV, SPLIT_UNSEEN, SPLIT_UNSEEN, SPLIT_UNSEEN, SPLIT_UNSEEN };
    return of[hash_bytes(s, len).b[0] % 20]; /* 256 is not a multiple of 20: the first 16 get one more of 256 */
}

static size_t part_len(const char *s) {
    return strcspn(s, "|");
}

static int parts(const char *s) {
    int n = 1;
    for (; *s; s++) n += *s == '|';
    return n;
}

static const char *next_part(const char *s) {
    s += part_len(s);
    return *s ? s + 1 : NULL;
}

static size_t plain(const char *s, size_t len, char out[TEXT_MAX]) {
    size_t n = 0;
    for (size_t i = 0; i < len && n < TEXT_MAX - 1; i++)
        if (s[i] != NAME_MARK) out[n++] = (char)tolower((unsigned char)s[i]);
    out[n] = 0;
    return n;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const word_list *)a)->name, ((const word_list *)b)->name);
}

static int by_text(const void *a, const void *b) {
    return strcmp(((const owned *)a)->text, ((const owned *)b)->text);
}

/* Words stay where they are put: text is reserved whole before pointers into it are taken. */
static const char *keep(words *w, const char *s, size_t len) {
    const char *at = w->text.p + w->text.len;
    sbuf_add(&w->text, s, len);
    sbuf_add(&w->text, "", 1);
    return at;
}

static bool is_plain(const char *low) {
    char key[TEXT_MAX + 2];
    snprintf(key, sizeof key, "|%s|", low);
    return strstr(not_names, key);
}

static void build_own(words *w, const own_row *row, word_list *list) {
    for (int s = 0; s < SPLIT_COUNT; s++) {
        list->word[s] = w->word + w->words;
        for (const char *l = row->left; l; l = next_part(l)) {
            for (const char *r = row->right; r; r = next_part(r)) {
                char both[TEXT_MAX], low[TEXT_MAX];
                int n = snprintf(both, sizeof both, "%.*s%s%.*s", (int)part_len(l), l, row->glue, (int)part_len(r), r);
                size_t len = plain(both, (size_t)n, low);
                if (owner(low, len) != (split)s || is_plain(low)) continue;
                w->word[w->words++] = keep(w, both, (size_t)n);
                w->own[w->owns++] = (owned){ keep(w, low, len), (split)s };
                list->count[s]++;
            }
        }
    }
}

static void build_shared(words *w, const shared_row *row, word_list *list) {
    const char **first = w->word + w->words;
    for (const char *p = row->words; p; p = next_part(p)) w->word[w->words++] = keep(w, p, part_len(p));
    for (int s = 0; s < SPLIT_COUNT; s++) {
        list->word[s] = first;
        list->count[s] = parts(row->words);
    }
}

gist_status words_create(words **out, gist_error *err) {
    size_t own = 0, shared = 0, bytes = 0;
    for (int i = 0; i < OWN; i++) own += (size_t)parts(own_rows[i].left) * (size_t)parts(own_rows[i].right);
    for (int i = 0; i < SHARED; i++) {
        shared += (size_t)parts(shared_rows[i].words);
        bytes += strlen(shared_rows[i].words) + 1;
    }
    bytes += own * 80; /* both spellings */
    words *w = mem_calloc(NULL, 1, sizeof *w);
    if (!w) return err_memory(err, "word lists");
    sbuf_init(&w->text, NULL);
    w->word = mem_alloc(NULL, own + shared, sizeof *w->word);
    w->own = mem_alloc(NULL, own, sizeof *w->own);
    w->text.p = mem_alloc(NULL, bytes, 1);
    w->text.cap = bytes;
    if (!w->word || !w->own || !w->text.p) {
        words_free(w);
        return err_memory(err, "word lists");
    }
    for (int i = 0; i < OWN; i++) {
        w->list[i].name = own_rows[i].name;
        build_own(w, &own_rows[i], &w->list[i]);
    }
    for (int i = 0; i < SHARED; i++) {
        w->list[OWN + i].name = shared_rows[i].name;
        build_shared(w, &shared_rows[i], &w->list[OWN + i]);
    }
    qsort(w->list, LISTS, sizeof *w->list, by_name);
    qsort(w->own, w->owns, sizeof *w->own, by_text);
    *out = w;
    return GIST_OK;
}

void words_free(words *w) {
    if (!w) return;
    sbuf_free(&w->text);
    mem_free(NULL, w->word);
    mem_free(NULL, w->own);
    mem_free(NULL, w);
}

const word_list *words_find(const words *w, const char *name, size_t len) {
    size_t lo = 0, hi = LISTS;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        int c = strncmp(w->list[mid].name, name, len);
        if (c == 0) c = w->list[mid].name[len] != 0;
        if (c == 0) return &w->list[mid];
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

split words_owner(const words *w, const char *s, size_t len) {
    char low[TEXT_MAX];
    if (len >= TEXT_MAX) return SPLIT_COUNT;
    plain(s, len, low);
    const owned key = { low, SPLIT_COUNT };
    const owned *found = bsearch(&key, w->own, w->owns, sizeof *w->own, by_text);
    return found ? found->s : SPLIT_COUNT;
}
