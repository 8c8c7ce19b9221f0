//! LaTeX as models write it around an answer. Reads what an answer needs of it, and leaves the rest as it is.

/// Numbers and words out of LaTeX: `\frac{3}{4}` is `3/4`, `\text{cm}` is `cm`, dollar signs around a formula are gone.
pub(super) fn without_latex(text: &str) -> String {
    let text = text.trim().trim_end_matches('.');
    let formula = text.strip_prefix('$').and_then(|text| text.strip_suffix('$')).unwrap_or(text);
    let formula = formula.strip_prefix("\\(").and_then(|text| text.strip_suffix("\\)")).unwrap_or(formula);
    if !formula.contains('\\') {
        return formula.to_owned();
    }
    let mut out = String::with_capacity(formula.len());
    let mut rest = formula;
    // What is left where the last brace closes: behind it, nobody need look for another one.
    let last_close = formula.rfind('}').map_or(usize::MAX, |place| formula.len() - place);
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        rest = command(after, after.len() >= last_close, &mut out);
    }
    out.push_str(rest);
    out
}

/// Writes what a command shows; what is left of the text. `closes`: there is a closing brace.
fn command<'a>(after: &'a str, closes: bool, out: &mut String) -> &'a str {
    // Up to the next brace, whichever it is: a text of nothing but opening ones is not read over and over.
    let argument = |text: &'a str| {
        let end = text.find(['{', '}'])?;
        Some((&text[..end], text[end..].strip_prefix('}')?))
    };
    for name in ["dfrac{", "tfrac{", "frac{"] {
        let parts = after.strip_prefix(name).and_then(|rest| {
            let (above, rest) = argument(rest)?;
            let (below, rest) = argument(rest.strip_prefix('{')?)?;
            Some((above, below, rest))
        });
        if let Some((above, below, rest)) = parts {
            out.push_str(&format!("{above}/{below}"));
            return rest;
        }
    }
    for name in ["text{", "mathrm{", "textbf{", "mathbf{"] {
        let named = after.strip_prefix(name).filter(|_| closes);
        if let Some((word, rest)) = named.and_then(|rest| rest.split_once('}')) {
            out.push_str(word);
            return rest;
        }
    }
    let mut characters = after.chars();
    match characters.next() {
        Some('$' | '%' | '{' | '}' | '&' | '#' | '_') => after,
        Some(',' | '!' | ';' | ':' | ' ') => characters.as_str(),
        _ => {
            out.push('\\');
            after
        }
    }
}
