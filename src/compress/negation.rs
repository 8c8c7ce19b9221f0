//! Words that turn what is said into its opposite, or allow nothing else: a summary that has fewer of them says something
//! else. By lists, of the languages that most prompts are in; in others none is found, and none is missed.

/// In lower case.
const WORDS: &[&str] = &[
    // English
    "not",
    "no",
    "never",
    "none",
    "nor",
    "neither",
    "nothing",
    "nobody",
    "cannot",
    "without",
    "except",
    "unless",
    "only",
    "forbidden",
    "prohibited",
    // German
    "nicht",
    "kein",
    "keine",
    "keinen",
    "keinem",
    "keiner",
    "keines",
    "nichts",
    "niemand",
    "niemanden",
    "niemandem",
    "nirgends",
    "weder",
    "nie",
    "niemals",
    "ohne",
    "außer",
    "nur",
    "verboten",
    "untersagt",
    // French
    "ne",
    "pas",
    "jamais",
    "aucun",
    "aucune",
    "sans",
    "sauf",
    "seulement",
    // Spanish, Portuguese, Italian
    "nunca",
    "sin",
    "ni",
    "salvo",
    "solo",
    "não",
    "sem",
    "nem",
    "apenas",
    "non",
    "mai",
    "senza",
    "né",
    // Dutch, Swedish
    "niet",
    "geen",
    "zonder",
    "inte",
    "utan",
    // Russian, Ukrainian, Polish
    "не",
    "нет",
    "ни",
    "нельзя",
    "никогда",
    "без",
    "только",
    "запрещено",
    "nigdy",
    "bez",
    "tylko",
];
/// English ones with "n't" behind them.
const SHORTENED: &[&str] = &[
    "don", "doesn", "didn", "isn", "aren", "wasn", "weren", "won", "wouldn", "shouldn", "mustn", "couldn", "can",
    "hasn", "haven", "hadn",
];
/// Characters that are words of their own.
const CHARACTERS: [char; 8] = ['不', '没', '無', '无', '勿', '未', '非', 'ぬ'];

/// Endings and words where no blanks part them.
const ENDINGS: [&str; 5] = ["ない", "ません", "なかった", "禁止", "않"];

/// How many of them a text has.
pub fn negations(text: &str) -> usize {
    let characters = text.chars().filter(|character| CHARACTERS.contains(character)).count()
        + ENDINGS.iter().map(|ending| text.matches(ending).count()).sum::<usize>();
    let (mut words, mut before) = (0, String::new());
    for word in text.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty()) {
        let word = word.to_lowercase();
        let is_one = WORDS.contains(&&*word) || (word == "t" && SHORTENED.contains(&&*before));
        words += usize::from(is_one);
        before = word;
    }
    words + characters
}
