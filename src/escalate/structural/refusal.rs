//! Answers that decline to answer, by the words with which models do so.
//!
//! Sees the usual phrases of eleven languages at the beginning of an answer. Does not see a refusal in other words, nor one
//! that hides in a long answer; and a good reason to refuse is no excuse, since a dearer model may know better.

/// Characters from the beginning in which a refusal stands.
const BEGINNING: usize = 200;
/// An answer with this many characters after the refusal is more than a refusal.
const SHORT: usize = 600;

/// "I cannot", and what it is that cannot be done: only both make a refusal, since letters, stories and facts have the first.
const UNABLE: [&str; 12] = [
    "i can't",
    "i cannot",
    "i can not",
    "i'm unable to",
    "i am unable to",
    "i'm not able to",
    "i am not able to",
    "i won't",
    "i will not",
    "i'm not comfortable",
    "i must decline",
    "i'm not going to",
];
const DEEDS: [&str; 22] = [
    "assist",
    "help with",
    "help you",
    "comply",
    "fulfill",
    "provide",
    "answer that",
    "answer this",
    "create",
    "generate",
    "discuss",
    "engage",
    "support",
    "continue with",
    "do that",
    "access",
    "browse",
    "share",
    "complete this",
    "offer",
    "participate",
    "write",
];
/// Deeds that people decline to each other as well, in what a model writes for them.
const SOCIAL: [&str; 9] =
    ["access", "browse", "share", "support", "complete this", "offer", "participate", "engage", "discuss"];
/// Requests for a text in somebody's name.
const LETTERS: [&str; 16] = [
    "apolog",
    "excuse",
    "decline",
    "turn down",
    "say no",
    "email",
    "e-mail",
    "letter",
    "message",
    "note to",
    "reply to",
    "my boss",
    "resign",
    "invitation",
    "sorry",
    "speech",
];
/// What follows "but" where nothing but an offer does.
const OFFERS: [&str; 16] = [
    "i'm",
    "i am",
    "i'd",
    "i would",
    "i will",
    "i'll",
    "i hope",
    "i cannot",
    "i can't",
    "if you",
    "if there",
    "feel free",
    "please",
    "let me",
    "thank",
    "you can ask",
];
/// Characters of an answer after "but" that make it one.
const LEAST_ANSWER: usize = 60;
/// Phrases that say all by themselves.
const PHRASES: [&str; 40] = [
    "i must decline",
    "i have to decline",
    "as an ai language model, i",
    "as a language model, i",
    "i can't help with",
    "ich kann dir dabei nicht",
    "ich kann ihnen dabei nicht",
    "dabei kann ich nicht",
    "ich kann diese anfrage nicht",
    "ich kann dabei nicht helfen",
    "tut mir leid, aber ich kann",
    "es tut mir leid, ich kann",
    "als ki-sprachmodell",
    "je ne peux pas vous aider",
    "je ne peux pas t'aider",
    "je suis désolé, mais je ne peux",
    "je suis désolée, mais je ne peux",
    "je ne suis pas en mesure de",
    "en tant que modèle de langage",
    "no puedo ayudarte con",
    "no puedo ayudarle con",
    "lo siento, pero no puedo",
    "como modelo de lenguaje",
    "non posso aiutarti con",
    "mi dispiace, ma non posso",
    "não posso ajudar com",
    "desculpe, mas não posso",
    "sinto muito, mas não posso",
    "het spijt me, maar ik kan",
    "ik kan je hier niet",
    "я не могу помочь",
    "извините, но я не могу",
    "к сожалению, я не могу",
    "我无法提供",
    "我无法协助",
    "抱歉，我无法",
    "抱歉，我不能",
    "申し訳ありませんが、",
    "죄송하지만",
    "nie mogę pomóc",
];
/// Japanese and Korean apologise first and say at the end of the sentence that they cannot.
const LATE: [&str; 6] = ["できません", "できかね", "お答えでき", "없습니다", "어렵습니다", "드릴 수 없"];
/// What turns a refusal into an answer.
const TURNS: [&str; 12] = [
    "but here",
    "however",
    "here's",
    "here is",
    "here are",
    "instead",
    "that said",
    "what i can",
    "but i can",
    "i can offer",
    "dennoch",
    "cependant",
];
/// Letters, tales and quotations, in which somebody else declines.
const OTHERS: [&str; 14] =
    ["dear ", "hi ", "hello ", "subject:", "\"", "“", "'", "‘", "„", "«", "> ", "sehr geehrte", "bonjour", "hola"];

/// How sure it is that a text is a refusal; None: it is not.
pub fn severity(text: &str, context: &str) -> Option<f64> {
    let text = text.trim_start().trim_start_matches(['*', '_', '#', ' ']);
    let beginning = lowered(text, BEGINNING);
    if OTHERS.iter().any(|mark| beginning.starts_with(mark)) {
        return None;
    }
    let (end, phrase) = find(&beginning)?;
    // "If you do not know, say: I cannot answer this."
    if context.len() <= super::MOST_CONTEXT * 2 && lowered(context, usize::MAX).contains(phrase) {
        return None;
    }
    if SOCIAL.iter().any(|deed| phrase.ends_with(deed)) || phrase.starts_with("i will not be able to") {
        let context = lowered(context, super::MOST_CONTEXT * 2);
        if LETTERS.iter().any(|word| context.contains(word)) {
            return None;
        }
    }
    let rest: String = lowered(text, usize::MAX).get(end..).unwrap_or_default().to_owned();
    if answers_all_the_same(&rest) {
        return None;
    }
    let turn = TURNS.iter().filter_map(|mark| rest.find(mark)).min();
    let after_turn = turn.map_or(0, |place| rest[place..].chars().count());
    if after_turn > 120 || text.contains("```") {
        return None;
    }
    Some(if rest.chars().count() <= SHORT { 0.9 } else { 0.4 })
}

/// "I can't see it from here, but check ...": what follows in the same sentence is no offer, but an answer. `rest`: what
/// comes after the phrase.
fn answers_all_the_same(rest: &str) -> bool {
    let Some((clause, after)) = rest.split_once(", but ") else { return false };
    let is_same_sentence = !clause.contains(['.', '!', '?', '\n']);
    is_same_sentence
        && !OFFERS.iter().any(|offer| after.starts_with(offer))
        && after.chars().nth(LEAST_ANSWER).is_some()
}

/// The phrase, and where it ends.
fn find(beginning: &str) -> Option<(usize, &str)> {
    let spans = |start: usize, end: usize| beginning.get(start..end).map(|phrase| (end, phrase));
    for unable in UNABLE {
        let Some(start) = beginning.find(unable) else { continue };
        let begins_sentence = beginning[..start].chars().next_back().is_none_or(|c| !c.is_alphanumeric());
        let after = start + unable.len();
        let window: String = beginning[after..].chars().take(40).collect();
        // Within the same clause.
        let window = window.split(['.', '!', '?', ';', '\n']).next().unwrap_or_default();
        let deed = DEEDS.iter().filter_map(|deed| window.find(deed).map(|place| after + place + deed.len())).min();
        if let Some(end) = deed.filter(|_| begins_sentence) {
            return spans(start, end);
        }
    }
    for phrase in PHRASES {
        let Some(start) = beginning.find(phrase) else { continue };
        let is_apology = phrase.starts_with("申し訳") || phrase.starts_with("죄송");
        if !is_apology || LATE.iter().any(|late| beginning[start..].contains(late)) {
            return spans(start, start + phrase.len());
        }
    }
    None
}

/// The first characters, in lower case and with plain apostrophes.
fn lowered(text: &str, most: usize) -> String {
    text.chars().take(most).flat_map(char::to_lowercase).map(|c| if c == '’' { '\'' } else { c }).collect()
}
