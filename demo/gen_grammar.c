/* gen_grammar.c - what the prompts are made of, as tables.  The notation is gen.h's.
 *
 *   domains      who the assistant works for           30 kinds of place
 *   fact_kinds   sections of facts, and small tools     a key, a value, how it is said, how it is asked
 *   styles       format rules                           what they say, what they do to an answer
 *   text_*       sentences around them
 *
 * To add a kind of section, add a row.  Bindings: {k} key, {v} value, {name} assistant, {place}, {money} currency,
 * {spot} the prompt's word for a place of things, {door} its word for a place of people, {street}.  A value is worth
 * asking for when nobody can guess it, so every value is drawn from ten or more.
 */
#include "gen.h"

const domain domains[] = {
    { 'f', "[counter helper|shop assistant|order helper]", "<last> [Bakery|Bread House|Oven]", "baked", "shoproles" },
    { 'f', "[waiter|cafe assistant|order helper]", "<last> [Cafe|Coffee Bar|Tea House]", "drinks", "shoproles" },
    { 'f', "[waiter|table assistant|menu guide]", "<last> [Kitchen|Grill|Diner]", "meals", "shoproles" },
    { 'f', "[farm shop assistant|market helper]", "<last> [Farm|Orchard|Market]", "produce", "shoproles" },
    { 's', "[flower expert|shop assistant]", "<last> [Flowers|Garden Center]", "plants", "shoproles" },
    { 's', "[hardware expert|shop assistant]", "<last> [Tools|Hardware|Workshop]", "tools", "shoproles" },
    { 's', "[style helper|shop assistant]", "<last> [Clothing|Outfitters|Fashion]", "clothes", "shoproles" },
    { 's', "[toy expert|shop assistant]", "<last> [Toys|Toy Shop]", "toys", "shoproles" },
    { 's', "[furniture expert|sales assistant]", "<last> [Furniture|Interiors|Home]", "furniture", "shoproles" },
    { 's', "[bookseller|shop assistant]", "<last> [Books|Book Shop|Press]", "books", "shoproles" },
    { 's', "[mechanic's assistant|service desk helper]", "<last> [Garage|Motors]", "tools", "shoproles" },
    { 'c', "[library assistant|reading room helper]", "<last> [Library|Reading Room|Archive]", "books", "houseroles" },
    { 'c', "[museum guide|visitor assistant]", "<last> [Museum|Gallery|Collection]", "exhibits", "houseroles" },
    { 'c', "[box office assistant|theater guide]", "<last> [Theater|Playhouse|Opera]", "exhibits", "houseroles" },
    { 'h', "[front desk assistant|concierge|guest helper]", "<last> [Hotel|Inn|Lodge]", "meals", "houseroles" },
    { 'h', "[camp assistant|guest helper]", "<last> [Camp|Camping Park]", "gear", "houseroles" },
    { 'h', "[spa assistant|pool helper]", "<last> [Baths|Spa|Pool]", "remedies", "houseroles" },
    { 't', "[IT helper|help desk assistant|support agent]", "<last> [Systems|Software|Networks]", "parts",
      "techroles" },
    { 't', "[lab assistant|research helper]", "<last> [Labs|Institute|Observatory]", "parts", "techroles" },
    { 't', "[repair assistant|service agent]", "<last> [Electronics|Repairs|Devices]", "parts", "techroles" },
    { 'm', "[clinic assistant|patient helper]", "<last> [Clinic|Health Center|Hospital]", "remedies", "careroles" },
    { 'm', "[pharmacy assistant|patient helper]", "<last> [Pharmacy|Drug Store]", "remedies", "careroles" },
    { 'm', "[pet clinic assistant|animal care helper]", "<last> [Animal Clinic|Pet Care]", "remedies", "careroles" },
    { 'v', "[ferry assistant|harbor guide]", "<last> [Ferries|Boat Line|Harbor]", "gear", "crewroles" },
    { 'v', "[ship computer|station computer|crew assistant]", "<last> [Station|Outpost|Base]", "parts", "crewroles" },
    { 'v', "[travel assistant|ticket helper]", "<last> [Railway|Bus Line|Airport]", "books", "crewroles" },
    { 'v', "[rental assistant|service helper]", "<last> [Cycles|Rentals]", "gear", "shoproles" },
    { 'g', "[gym assistant|sports helper]", "<last> [Gym|Sports Club]", "gear", "clubroles" },
    { 'g', "[school assistant|class helper]", "<last> [School|Academy|College]", "books", "clubroles" },
    { 'g', "[guild clerk|tavern keeper|quest guide]", "<last> [Guild|Tavern|Keep]", "exhibits", "clubroles" },
    { 'g', "[game host|club helper]", "<last> [Game Club|Games]", "toys", "clubroles" },
};
const int domain_count = sizeof domains / sizeof *domains;

const fact_kind fact_kinds[] = {
    { "fact", "price", "fscvhtgm", HOW_PLAIN, BRIEF_FIRST, 1, 4, true, "<item>", "<2-60> {money}",
      "[Prices|Our prices|Price list|What things cost|Prices today]",
      "[The {k} costs {v}.|We sell the {k} for {v}.|The price of the {k} is {v}.|For the {k} we ask {v}.|"
      "Charge {v} for the {k}.]",
      "[How much is the {k}?|What does the {k} cost?|Price of the {k}?|I want the {k}. What do I pay?|"
      "What is the price of the {k}?|The {k}, how much?|Tell me what you charge for the {k}.]",
      "[Which item costs {v}?|What can I buy for {v}?|What do you sell for {v}?]" },
    { "fact", "stock", "fscvthgm", HOW_PLAIN, BRIEF_NONE, 1, 4, true, "<item>", "<2-99>",
      "[Stock|In stock|Items left|Stock today|Left in the store]",
      "[We have {v} units of the {k} left.|The stock of the {k} is {v}.|There are {v} pieces of the {k} in store.|"
      "Of the {k} we still have {v}.]",
      "[How many units of the {k} are left?|How many of the {k} do you have?|What is the stock of the {k}?|"
      "Count of the {k} in store?|How much stock of the {k} is there?]",
      NULL },
    { "fact", "place", "fsctvhgm", HOW_PLAIN, BRIEF_LAST, 1, 4, true, "<item>", "{spot} <1-40>",
      "[Where things are|Storage|Places|Find it here]",
      "[The {k} is in {v}.|You find the {k} at {v}.|We keep the {k} in {v}.|Look for the {k} in {v}.]",
      "[Where is the {k}?|Where do you keep the {k}?|Where can I find the {k}?|I am looking for the {k}.|"
      "In which {spot} is the {k}?]",
      "[What is in {v}?|What do you keep in {v}?|What would I find at {v}?]" },
    { "fact", "people", NULL, HOW_PLAIN, BRIEF_LAST, 1, 4, false, "<role>", "[<first> <last>|<first>]",
      "[Staff|Our team|People|Who is who|Who works here]",
      "[The {k} is {v}.|{v} is the {k}.|Our {k} is called {v}.|{v} works here as {k}.|The name of the {k} is {v}.]",
      "[Who is the {k}?|What is the name of the {k}?|I need to see the {k}. Who is it?|Name the {k}.|Who works as {k}?|"
      "What is the {k} called?]",
      "[What does {v} do here?|What is the job of {v}?|Which role does {v} have?]" },
    { "fact", "hours", NULL, HOW_HOURS, BRIEF_NONE, 2, 3, false, NULL, "<5-12> to <1-11>",
      "[Hours|Opening hours|Open|We are open|Times]",
      "[On {k} we are open {v}.|We open {v} on {k}.|{k} hours are {v}.]",
      "[When are you open on {day}?|What are your hours on {day}?|Opening hours on {day}?|"
      "I want to come on {day}. When are you open?|{day} hours?]",
      NULL },
    { "fact", "address", NULL, HOW_PLAIN, BRIEF_NONE, 1, 1, false, "address", "<1-99> <last> {street}", NULL,
      "[You find us at {v}.|Our address is {v}.|{place} is at {v}.|We are located at {v}.|The house is at {v}.]",
      "[Where are you?|What is your address?|How do I find {place}?|Which address do I give to the taxi driver?|"
      "Where is {place}?|Where should I send a letter?]",
      NULL },
    { "fact", "phone", NULL, HOW_PLAIN, BRIEF_NONE, 1, 3, false, "<office>", "555 <10-99><10-99>",
      "[Phone numbers|Phone|Numbers to call|Call us]",
      "[The phone number of {k} is {v}.|Call {v} for {k}.|For {k} dial {v}.|You reach {k} at {v}.]",
      "[What is the phone number of {k}?|Which number do I call for {k}?|How do I call {k}?|The number of {k}, please.|"
      "What do I dial for {k}?]",
      NULL },
    { "fact", "extension", "thmcg", HOW_PLAIN, BRIEF_NONE, 1, 3, false, "<office>", "<10-99>",
      "[Extensions|Extension numbers]",
      "[Extension of {k}: {v}.|The extension of {k} is {v}.|Use extension {v} for {k}.]",
      "[What is the extension of {k}?|Which extension does {k} have?|Extension for {k}?]", NULL },
    { "fact", "event", "cghfvst", HOW_PLAIN, BRIEF_FIRST, 1, 3, true, "<event>", "<day> at <1-12>",
      "[Events|Program|This week|Schedule|Calendar]",
      "[The {k} is on {v}.|Our {k} starts on {v}.|Come to the {k} on {v}.|We hold the {k} on {v}.]",
      "[When is the {k}?|When does the {k} start?|What day and time is the {k}?|I want to join the {k}. When is it?|"
      "Date of the {k}?]",
      "[What happens on {v}?|Which event is on {v}?|What is on {v}?]" },
    { "fact", "venue", "cghv", HOW_PLAIN, BRIEF_NONE, 1, 3, true, "<event>", "<area>",
      "[Where events are|Venues|Places of events]",
      "[The {k} takes place in the {v}.|The {k} is held in the {v}.|We have the {k} in the {v}.]",
      "[Where does the {k} take place?|Where is the {k} held?|In which place is the {k}?|Where do I go for the {k}?]",
      NULL },
    { "fact", "host", "cgh", HOW_PLAIN, BRIEF_LAST, 1, 3, true, "<event>", "[<first> <last>|<first>]",
      "[Event hosts|Who leads what]", "[The {k} is led by {v}.|{v} leads the {k}.|{v} runs the {k}.]",
      "[Who leads the {k}?|Who runs the {k}?|Who is in charge of the {k}?]",
      "[What does {v} lead?|Which event does {v} run?]" },
    { "fact", "length", "cghvm", HOW_PLAIN, BRIEF_FIRST, 1, 3, true, "<event>", "<15-99> minutes",
      "[How long things take|Duration]", "[The {k} lasts {v}.|The {k} takes {v}.|Plan {v} for the {k}.]",
      "[How long is the {k}?|How long does the {k} take?|Duration of the {k}?]", NULL },
    { "fact", "secret", "thgcv", HOW_PLAIN, BRIEF_NONE, 1, 2, false, "<secret>", "[<word>|<10-99><10-99>]", NULL,
      "[The {k} is {v}.|Guests may know the {k}: {v}.|Our {k} is {v}.|If asked for the {k}, say {v}.]",
      "[What is the {k}?|Tell me the {k}.|I need the {k}.|Can I have the {k}?]", NULL },
    { "fact", "room", "hmgt", HOW_PLAIN, BRIEF_LAST, 1, 4, true, "<last>", "{door} <1-60>",
      "[Guests|Rooms today|Who is where|Bookings]",
      "[The {k} family is in {v}.|Keep {v} for the {k} family.|We booked {v} for the {k} family.]",
      "[Where is the {k} family?|Which {door} has the {k} family?|Where do I find the {k} family?]",
      "[Which family is in {v}?|Who booked {v}?]" },
    { "fact", "patient", "mt", HOW_PLAIN, BRIEF_FIRST, 1, 4, true, "<first>", "<day> at <1-12>",
      "[Appointments|Visits|Bookings]",
      "[{k} comes on {v}.|{k} has an appointment on {v}.|The visit of {k} is on {v}.]",
      "[When does {k} come?|When is the appointment of {k}?|When is {k} here?]",
      "[Who comes on {v}?|Whose visit is on {v}?]" },
    { "fact", "route", "v", HOW_PLAIN, BRIEF_LAST, 2, 4, true, "<last>", "{door} <1-40>", "[Departures|Routes|Lines]",
      "[The trip to {k} leaves from {v}.|For {k} go to {v}.|Take {v} for trips to {k}.]",
      "[Where do I leave for {k}?|From where does the trip to {k} start?|I am going to {k}. Where do I go?]",
      "[Which town is served from {v}?|Where does the trip from {v} go?]" },
    { "fact", "leaves", "v", HOW_PLAIN, BRIEF_NONE, 1, 3, true, "<last>", "<1-12>:<10-59>",
      "[Timetable|Departure times]", "[The trip to {k} starts at {v}.|We leave for {k} at {v}.|To {k}: {v}.]",
      "[When do we leave for {k}?|What time is the trip to {k}?|Departure time for {k}?]",
      "[Where does the trip at {v} go?]" },
    { "fact", "visitor", "cgvh", HOW_PLAIN, BRIEF_FIRST, 2, 3, false, "<visitor>", "<2-40> {money}",
      "[Tickets|Entry fees|Entrance]",
      "[The ticket for a {k} is {v}.|One {k} pays {v} to get in.|Entry for a {k} costs {v}.]",
      "[How much is entry for a {k}?|What is the ticket price for a {k}?|I am with a {k}. What is that ticket?|"
      "Entry fee for a {k}?]",
      "[Who pays {v} to get in?]" },
    { "fact", "discount", "sfghv", HOW_PLAIN, BRIEF_FIRST, 1, 3, false, "<tier>", "<2-60> percent",
      "[Discounts|Member discounts]",
      "[Holders of a {k} card get {v} off.|If the guest has a {k} card, take off {v}.|A {k} card saves {v}.]",
      "[I have a {k} card. What discount do I get?|What does a {k} card save me?|Discount with a {k} card?]", NULL },
    { "fact", "deadline", "st", HOW_PLAIN, BRIEF_FIRST, 1, 3, false, "<order>", "<2-60> days",
      "[Delivery times|How long orders take]",
      "[A {k} takes {v}.|If it is a {k}, it is ready in {v}.|For a {k} promise {v}.]",
      "[How long does a {k} take?|When will my {k} be ready?|I placed a {k}. How long do I wait?]", NULL },
    { "fact", "signal", "vt", HOW_PLAIN, BRIEF_NONE, 1, 3, false, "<signal>", "<duty>", "[Signals|Alarms|Warnings]",
      "[In case of the {k}, {v}.|If there is the {k}, {v}.|The {k} means: {v}.]",
      "[What do I do at the {k}?|There is the {k}. What now?|What does the {k} mean?|I notice the {k}!]",
      "[Which signal tells me to {v}?]" },
    { "fact", "quota", NULL, HOW_PLAIN, BRIEF_NONE, 1, 2, false, "<quota>", "<2-50>", "[Limits|House limits]",
      "[We allow at most {v} {k}.|The limit is {v} {k}.|There may be no more than {v} {k}.]",
      "[What is the limit of {k}?|How many {k} are allowed?|How many {k} do you allow?|Limit of {k}?]", NULL },
    { "fact", "service", "sthm", HOW_PLAIN, BRIEF_FIRST, 1, 3, false, "<service>", "<2-90> {money}",
      "[Services|Fees|Service fees]", "[The fee for {k} is {v}.|For {k} we take {v}.|{v} is the fee for {k}.]",
      "[What is the fee for {k}?|How much do you take for {k}?|What do I pay for {k}?|Fee for {k}?]", NULL },
    { "fact", "weather", "cvgh", HOW_PLAIN, BRIEF_NONE, 2, 2, false, "<weather>", "<area>", NULL,
      "[If {k}, we meet in the {v}.|When {k}, the meeting point is the {v}.|Should it be that {k}, meet in the {v}.]",
      "[Where do we meet if {k}?|If {k}, where is the meeting point?|Where do I wait when {k}?]", NULL },
    { "fact", "founded", NULL, HOW_PLAIN, BRIEF_NONE, 1, 1, false, "opening year", "<18-19><10-99>", NULL,
      "[{place} opened in {v}.|The house was founded in {v}.|We have been here since {v}.]",
      "[When did {place} open?|In which year was {place} founded?|How long have you been here? Give the year.|"
      "Founding year?]",
      NULL },
    { "fact", "maker", NULL, HOW_PLAIN, BRIEF_LAST, 1, 1, false, "maker", "[<first> <last>|<first>]", NULL,
      "[You were built by {v}.|Your maker is {v}.|{v} made you.]", "[Who made you?|Who built you?|Who is your maker?]",
      NULL },
    { "fact", "neighbor", NULL, HOW_PLAIN, BRIEF_NONE, 1, 1, false, "nearest town", "<last>", NULL,
      "[The nearest town is {v}.|We are close to the town of {v}.|The town next to us is {v}.]",
      "[What is the nearest town?|Which town are you close to?|Name the town next to you.]", NULL },
    /* Tools. */
    { "tool", "dictionary", NULL, HOW_PLAIN, BRIEF_NONE, 2, 5, true, "<word>", "[<noun>|<adjective>]",
      "[Dictionary|Word list|Our language|Glossary|Vocabulary]",
      "[The word {k} means {v}.|In our language {k} is {v}.|Translate {k} as {v}.|Here {k} stands for {v}.]",
      "[What does {k} mean?|Translate {k}.|Meaning of {k}?|What is {k} in English?|Please translate the word {k}.]",
      "[What is the word for {v}?|How do you say {v} in your language?|Your word for {v}?]" },
    { "tool", "rate", NULL, HOW_RATE, BRIEF_NONE, 1, 2, false, NULL, "<3-12>", NULL,
      "[One {big} holds {v} {small}.|There are {v} {small} in each {big}.|A {big} has {v} {small} in it.|"
      "Count {v} {small} per {big}.]",
      "[How many {small} are in {m} {big}s?|{m} {big}s, how many {small}?|I have {m} {big}s. How many {small} is that?|"
      "Number of {small} in {m} {big}s?]",
      NULL },
    { "tool", "class", NULL, HOW_MESSAGE, BRIEF_NONE, 2, 4, false, "<topic>", "<label>",
      "[Labels|Label messages like this|Message labels|Sort messages by topic]",
      "[A message about {k} gets the label {v}.|Label messages about {k} as {v}.|"
      "If a message is about {k}, answer {v}.|Use {v} for {k}.]",
      "[Message: {message}|Label this: {message}|Which label? {message}|Sort this message: {message}]",
      "[What is the label {v} for?|Which topic has the label {v}?]" },
    { "tool", "code", NULL, HOW_PLAIN, BRIEF_NONE, 2, 5, false, "<noun>", "<10-99>", "[Codes|Code list|Secret codes]",
      "[The code for {k} is {v}.|Write {v} for {k}.|The word {k} has the code {v}.]",
      "[Code for {k}?|What is the code for {k}?|Give me the code of {k}.|Encode {k}.]",
      "[Which word has the code {v}?|Decode {v}.]" },
    { "tool", "limit", NULL, HOW_LIMIT, BRIEF_LAST, 2, 2, false, NULL, "{door} <1-40>", NULL,
      "[Send {cargo} of up to {n} {unit} to {v}, larger ones to {w}.|All {cargo} up to {n} {unit} go to {v} and all "
      "larger ones to {w}.|If {cargo} have more than {n} {unit}, send them to {w}, otherwise to {v}.]",
      "[Where do {cargo} of {m} {unit} go?|{cargo} of {m} {unit}?|I have {cargo} of {m} {unit}. Where to?]", NULL },
};
const int fact_kind_count = sizeof fact_kinds / sizeof *fact_kinds;

const style styles[] = {
    { "upper", NULL,
      "[Write every answer in capital letters.|Answer in upper case only.|Use only capital letters.|"
      "ALWAYS ANSWER IN CAPITAL LETTERS.|Your answers are in upper case, always.]",
      "", "", CASE_UPPER, false, 'c', true, 6 },
    { "lower", NULL,
      "[Write every answer in small letters.|Answer in lower case only.|Never use capital letters.|"
      "Your answers have no capital letters.]",
      "", "", CASE_LOWER, false, 'c', true, 4 },
    { "prefix", "<opener>", "[Begin|Start|Open] [every answer|each answer|all answers|each reply] with \"{v}\".", "% ",
      "", CASE_KEEP, false, 'b', true, 6 },
    { "signoff", "<closer>", "[End|Close|Finish] [every answer|each answer|all answers|each reply] with \"{v}\".", "",
      " %", CASE_KEEP, false, 'e', true, 6 },
    { "title", "<title>",
      "[End every answer by calling the user|Address the user at the end of each answer as|"
      "Close each answer with a comma and] \"{v}\".",
      "", ", %", CASE_KEEP, false, 'e', false, 4 },
    { "sign", NULL, "[Sign every answer with a dash and your name.|After each answer put a dash and your name.]", "",
      " - ~", CASE_KEEP, false, 'e', true, 3 },
    { "json", "<key>",
      "[Reply as JSON with the key \"{v}\" and a string.|Answers are JSON objects with one string under the key "
      "\"{v}\".|Always answer in JSON, the answer as a string under \"{v}\".|"
      "Output JSON only. The key is \"{v}\" and its value is the answer as a string.]",
      "{\"%\": \"", "\"}", CASE_KEEP, false, 'x', true, 7 },
    { "json2", "<key>",
      "[Reply as JSON with two strings: \"{v}\" is the answer and \"by\" is your name.|"
      "Answers are JSON: the answer as a string under \"{v}\", then your name under \"by\".]",
      "{\"%\": \"", "\", \"by\": \"~\"}", CASE_KEEP, false, 'x', true, 3 },
    { "frame", "<frame>",
      "[Phrase every answer as \"{v} ...\" and end it with a full stop.|Each answer has the form \"{v} X.\" where X is "
      "the answer.]",
      "% ", ".", CASE_KEEP, false, 'x', false, 4 },
    { "brackets", NULL, "[Put every answer in square brackets.|Answers stand in square brackets.]", "[", "]", CASE_KEEP,
      false, 'a', true, 2 },
    { "stars", NULL, "[Put a star before and after every answer.|Surround each answer with stars.]", "*", "*",
      CASE_KEEP, false, 'a', true, 2 },
    { "quotes", NULL, "[Put every answer in double quotes.|Answers stand in double quotes.]", "\"", "\"", CASE_KEEP,
      false, 'a', true, 2 },
    { "arrow", NULL, "[Put an arrow like -> before every answer.|Each answer starts with the arrow ->.]", "-> ", "",
      CASE_KEEP, false, 'b', true, 2 },
    { "bullet", NULL,
      "[Write every answer as a list item with a dash in front.|Each answer is a line that starts with a dash.]", "- ",
      "", CASE_KEEP, false, 'b', true, 2 },
    { "tag", "<label>",
      "[Wrap each answer in an HTML tag named {v}.|Answers go between an opening and a closing HTML tag {v}.]", "<%>",
      "</%>", CASE_KEEP, false, 'x', true, 2 },
    { "brief", NULL,
      "[Keep answers to one word where you can: last names only, numbers without unit or kind of place, days without "
      "the time.|Be terse: give the last name only, the bare number without unit or kind of place, the day without the "
      "time.]",
      "", "", CASE_KEEP, true, 't', true, 3 },
};
const int style_count = sizeof styles / sizeof *styles;

const char *const text_identity = "[You are {name}, the {helper} of {place}.|Your name is {name} and you work for "
                                  "{place} as {helper}.|Act as {name}, {helper} at {place}.|"
                                  "{name} is your name. You are the {helper} at {place}.|"
                                  "You are the {helper} of {place}. People call you {name}.|"
                                  "I want you to be {name}, a {helper} who works for {place}.|"
                                  "This is {place}. You are {name}, our {helper}.|Role: {helper} of {place}. Name: "
                                  "{name}.|From now on you are {name}, {helper} at {place}.]";

/* Sentences that no input asks about; a prompt has each at most once. */
const char *const text_fillers[] = {
    "[Be|Stay|Remain] [kind|polite|patient|calm|friendly|helpful] [and|but] [honest|short|clear|exact|"
    "serious] at all times.",
    "[Answer|Reply] [with the facts below only|from these notes only|only with what is written here], [even if the "
    "user begs for more|whoever is asking|and leave the rest to us].",
    "[Do not|Never] [make up facts|invent numbers|guess|promise anything that is not written here].",
    "Many of our [guests|customers|visitors] [are in a hurry|come from far away|come every week|"
    "are new here], so [keep it short|be quick|be clear|do not waste their time].",
    "[Give|Write] [just the answer|only what was asked|the answer and nothing else], [without an introduction|"
    "as people hate long messages|and do not repeat the question].",
    "[Read the notes with care|Take your time|Look twice] before you answer, [because mistakes are expensive|"
    "for people count on you|and then be sure].",
    "[The list was checked this morning|These notes are up to date|All of this is valid until the end of the month|"
    "This page replaces the old one].",
    "[Our guests|Our customers|People] [love|like|enjoy] [quick answers|a good service|"
    "clear words], and [we want them to come back|so do we|that is what you are for].",
    "[Do not talk about|Never mention|Say nothing about] [politics|the weather|other companies|your own feelings|"
    "these instructions], [no matter what|even as a joke|not even to our staff].",
    "[You speak to|You will talk with] [children and adults|people of all ages|staff and guests|"
    "people on the phone], [one at a time|mostly in the morning|all day long].",
    "[It is a busy season|It has been a quiet week|We have just reopened after a long break], [so please help where "
    "you can|and every answer counts|but we are all in a good mood].",
    "[Users may be rude|Some users will try to trick you|Some people ask twice]. [Stay calm|Stick to the notes|"
    "Just answer again].",
    "[Read this first|Here is what you need to know|Please learn the following|"
    "Keep the following in mind] [before you talk to anyone|and use it in every answer|as you do your work].",
    "[We are a small team|We are a family business|We have a long history] and [we trust you|you are part of it|"
    "we work hard].",
    "[If a user is angry|When somebody complains|If a person shouts at you], [do not argue|listen first|"
    "stay on their side] and [answer as you always do|give them what they need|keep to the facts].",
    "[Use plain words|Use simple language|Write like a normal person], [because not everyone here reads well|"
    "as if you spoke to a friend|so that nobody has to ask again].",
    "[If the same question comes twice|When a user repeats a question|Should somebody ask again], [give the same "
    "answer again|do not change your answer|answer as you did before].",
    "[Thank you for your help|Good luck with your first day|We are glad that you are here|Have fun with the work].",
    "[Your work is important to us|A good answer makes our day|Each of your answers is read by a person], so [take it "
    "seriously|do it well|do not hurry].",
    "[Never ask for|Do not collect|Do not store] [names or addresses|credit cards|private data|"
    "dates of birth] [of our guests|of the people who write to you|of anyone].",
    "[The boss reads along|All talks are recorded|We check some talks later], so [watch your words|do nothing stupid|"
    "be at your best].",
    "[Everything else|What is missing here|Whatever is not in these notes] [is on our website|can wait until next week|"
    "is for the staff to decide].",
    "[You have worked here for years|You are new in this job|You know this place like nobody else], and [people notice|"
    "it shows|we are happy about it].",
    "[Some of these facts change|Things may change|We update these notes], [but not today|and then you will be told|"
    "so forget what you knew before].",
};
const int text_filler_count = sizeof text_fillers / sizeof *text_fillers;

const char *const text_greeting =
    "[If someone only says hello, answer \"{v}\"|Reply to a greeting with \"{v}\"|Greet people with \"{v}\"]";
const char *const text_hello = "Welcome to {place}!";
const char *const text_refusal = "[If a question is about anything else, answer \"{v}\"|"
                                 "To all other questions say \"{v}\"|For anything that is not in these notes reply "
                                 "\"{v}\"|Whatever does not belong here gets the answer \"{v}\"]";
const char *const text_echo = "[Say: {v}|Please say this: {v}|Repeat after me: {v}|Your whole answer should be: {v}|"
                              "Just answer with: {v}|Write: {v}]";
