use farthing::compress::structural::Seen;

fn paragraph(begin: &str) -> String {
    format!("{begin} {}", "and more words that say it ".repeat(10).trim())
}

#[test]
fn what_was_said_becomes_a_reference() {
    let mut seen = Seen::default();
    let (one, two) = (paragraph("Our terms are these:"), paragraph("Another matter is"));
    assert_eq!(seen.compress(&format!("Hello.\n\n{one}\n\n{two}")), None);
    assert_eq!(
        seen.compress(&format!("{two}\n\nNew.\n\n{one}\n")).unwrap(),
        "[the same as above: \"Another matter is and more words that say it…\"]\n\nNew.\n\n\
         [the same as above: \"Our terms are these: and more words that say it…\"]\n"
    );
    // Within one text, too.
    let mut seen = Seen::default();
    let found = seen.compress(&format!("{one}\n\n{one}")).unwrap();
    assert!(found.starts_with(&format!("{one}\n\n[the same as above: \"Our terms")), "{found}");
}

#[test]
fn short_code_and_quoted_paragraphs_stay() {
    let mut seen = Seen::default();
    let long = paragraph("x");
    let schema = format!("{{\"type\": \"object\", \"properties\": {{\"{long}\": {{}}}}}}");
    for text in ["Short.".to_owned(), format!("```\n{long}\n```"), format!("> {long}"), format!("    {long}"), schema] {
        assert_eq!(seen.compress(&text), None, "{text}");
        assert_eq!(seen.compress(&text), None, "{text}");
    }
}

#[test]
fn a_reference_says_which_it_means() {
    let mut seen = Seen::default();
    let (one, two) = (
        paragraph("The same beginning of both and then") + " 1",
        paragraph("The same beginning of both and then") + " 2",
    );
    assert_eq!(seen.compress(&one), None);
    assert_eq!(seen.compress(&two), None);
    assert_eq!(seen.compress(&one), None);
}

#[test]
fn json_is_referred_to_as_a_whole() {
    let mut seen = Seen::default();
    let part = "\"words words words\", ".repeat(20);
    let text = format!("{{\"id\": 7, \"list\": [{part}1]}}");
    assert_eq!(seen.compress(&text), None);
    let found = seen.compress(&text).unwrap();
    assert!(found.starts_with("[the same as above: \"{\"id\": 7, \"list\""), "{found}");
}
