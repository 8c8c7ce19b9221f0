//! Numbers as people and models write them: `1,234.50`, `1.234,5`, `$5`, `50 %`, `3/4`, `\frac{3}{4}`, `1e3`,
//! `2 × 10^5`, `3 million`.
//!
//! Kept as decimal digits, so that long ones are told apart. Not read: mixed fractions (`1 1/2`), Roman numerals, number
//! words, and groups of digits parted by plain spaces. `1,234` is a thousand and more, `1,23` has a decimal comma, and
//! `1.234` is little more than one.

use std::fmt;

/// More digits than this are no number that anybody means.
const MOST_DIGITS: usize = 4096;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Number {
    is_negative: bool,
    /// Without zeros at either end; empty = 0.
    digits: String,
    /// Power of ten of the last digit.
    exponent: i64,
    /// Digits below the fraction bar.
    denominator: Option<String>,
    is_percent: bool,
}

impl Number {
    fn new(is_negative: bool, whole: &str, decimals: &str) -> Self {
        let all = [whole, decimals].concat();
        let mut exponent = -i64::try_from(decimals.len()).unwrap_or_default();
        let kept = all.trim_end_matches('0');
        exponent += i64::try_from(all.len() - kept.len()).unwrap_or_default();
        let digits = kept.trim_start_matches('0').to_owned();
        let is_zero = digits.is_empty();
        Self {
            is_negative: is_negative && !is_zero,
            digits,
            exponent: if is_zero { 0 } else { exponent },
            ..Self::default()
        }
    }

    /// Whether both are the same amount. `50%` is the same as `0.5` and, since questions that ask for a percentage get
    /// both, as `50`. Fractions are compared as floats, to nine digits.
    pub fn is_same(&self, other: &Self) -> bool {
        if self.is_equal(other) {
            return true;
        }
        match (self.is_percent, other.is_percent) {
            (true, false) => self.hundredth().is_equal(other),
            (false, true) => other.hundredth().is_equal(self),
            _ => false,
        }
    }

    fn is_equal(&self, other: &Self) -> bool {
        if self.denominator.is_none() && other.denominator.is_none() {
            return (self.is_negative, &self.digits, self.exponent)
                == (other.is_negative, &other.digits, other.exponent);
        }
        let (one, other) = (self.value(), other.value());
        one.is_finite() && (one - other).abs() <= 1e-9 * one.abs().max(other.abs())
    }

    fn hundredth(&self) -> Self {
        let exponent = if self.digits.is_empty() { 0 } else { self.exponent.saturating_sub(2) };
        Self { exponent, is_percent: false, ..self.clone() }
    }

    /// NaN: divided by zero.
    pub fn value(&self) -> f64 {
        let digits = if self.digits.is_empty() { "0" } else { &self.digits };
        let above: f64 = format!("{digits}e{}", self.exponent).parse().unwrap_or(f64::NAN);
        let below: f64 = self.denominator.as_ref().map_or(Ok(1.0), |digits| digits.parse()).unwrap_or(f64::NAN);
        let value = if below == 0.0 { f64::NAN } else { above / below };
        if self.is_negative { -value } else { value }
    }
}

/// One form for all ways to write the same digits.
impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = if self.digits.is_empty() { "0" } else { &self.digits };
        f.write_str(if self.is_negative { "-" } else { "" })?;
        match usize::try_from(self.exponent.unsigned_abs()).unwrap_or(usize::MAX) {
            0 => f.write_str(digits)?,
            shift if shift > 30 => write!(f, "{digits}e{}", self.exponent)?,
            shift if self.exponent > 0 => write!(f, "{digits}{}", "0".repeat(shift))?,
            shift if shift < digits.len() => {
                let (whole, decimals) = digits.split_at(digits.len() - shift);
                write!(f, "{whole}.{decimals}")?;
            }
            shift => write!(f, "0.{}{digits}", "0".repeat(shift - digits.len()))?,
        }
        if let Some(below) = &self.denominator {
            write!(f, "/{below}")?;
        }
        f.write_str(if self.is_percent { "%" } else { "" })
    }
}

/// A text that is a number with at most two words after it: the number and those words, in lower case.
pub fn whole(text: &str) -> Option<(Number, String)> {
    let characters = characters(text.trim());
    let mut at = 0;
    let mut is_negative = false;
    // At most a sign, "about" and a currency.
    while let Some(c) = characters.get(at).filter(|c| !c.is_ascii_digit()) {
        match c {
            '-' if !is_negative => is_negative = true,
            '+' | '~' | '≈' | ' ' => {}
            c if is_currency(*c) => {}
            '.' if characters.get(at + 1).is_some_and(char::is_ascii_digit) => break,
            _ => return None,
        }
        at += 1;
    }
    let (number, end) = read(&characters, at, is_negative)?;
    let rest: String = characters.get(end..)?.iter().collect();
    let unit = rest.trim().trim_end_matches(['.', '!', '。']).trim_start_matches(is_currency).trim();
    let is_unit = unit.chars().all(|c| c.is_alphabetic() || matches!(c, ' ' | '°' | '²' | '³' | '/'))
        && unit.split_whitespace().count() <= 2
        && unit.chars().count() <= 30;
    is_unit.then(|| (number, unit.to_lowercase()))
}

/// All numbers of a text, in their order.
pub fn all(text: &str) -> Vec<Number> {
    let characters = characters(text);
    let mut found = Vec::new();
    let mut at = 0;
    while at < characters.len() {
        let before = at.checked_sub(1).and_then(|place| characters.get(place)).copied();
        let is_start = characters[at].is_ascii_digit() && !before.is_some_and(char::is_alphabetic);
        if !is_start {
            at += 1;
            continue;
        }
        let is_negative = is_minus(&characters, at);
        match read(&characters, at, is_negative) {
            Some((number, end)) => {
                found.push(number);
                at = end.max(at + 1);
            }
            // The whole of it: its end is no number either, and a long one is not read again from each of its digits.
            None => at = end_of_run(&characters, at).max(at + 1),
        }
    }
    found
}

/// The last number of a text.
pub fn last(text: &str) -> Option<Number> {
    all(text).pop()
}

/// Whether a minus stands before a number (and its currency) that is not the dash of a range.
fn is_minus(characters: &[char], at: usize) -> bool {
    let mut before = characters[..at].iter().rev().skip_while(|c| is_currency(**c));
    before.next() == Some(&'-') && !before.next().is_some_and(|c| c.is_alphanumeric() || *c == ')' || *c == '-')
}

/// Where the digits that begin at `at`, and the separators between them, end.
fn end_of_run(characters: &[char], at: usize) -> usize {
    let is_digit = |at: usize| characters.get(at).is_some_and(char::is_ascii_digit);
    let mut end = at;
    while is_digit(end) || (characters.get(end).is_some_and(|c| is_separator(*c)) && is_digit(end + 1)) {
        end += 1;
    }
    end
}

/// Reads the number that begins at `at`, and tells where it ends. None: a version, a date or the like.
fn read(characters: &[char], at: usize, is_negative: bool) -> Option<(Number, usize)> {
    let mut end = at;
    let mut groups: Vec<(char, String)> = Vec::new();
    let mut separator = '\0';
    loop {
        let digits: String = characters.get(end..)?.iter().take_while(|c| c.is_ascii_digit()).collect();
        if end - at > MOST_DIGITS || digits.len() > MOST_DIGITS {
            return None;
        }
        end += digits.len();
        groups.push((separator, digits));
        match (characters.get(end), characters.get(end + 1)) {
            (Some(c), Some(next)) if is_separator(*c) && next.is_ascii_digit() => {
                separator = *c;
                end += 1;
            }
            _ => break,
        }
    }
    let (whole, decimals) = parts(&groups)?;
    let mut number = Number::new(is_negative, &whole, &decimals);
    end = exponent(characters, end, &mut number);
    end = denominator(characters, end, &mut number);
    Some(after(characters, end, number))
}

/// Digits before and after the decimal point.
fn parts(groups: &[(char, String)]) -> Option<(String, String)> {
    let ((_, first), rest) = groups.split_first()?;
    let Some(((last_separator, last), middle)) = rest.split_last() else { return Some((first.clone(), String::new())) };
    let is_grouped = |groups: &[(char, String)]| {
        let separator = groups.first().map(|(separator, _)| *separator);
        (1..=3).contains(&first.len())
            && !first.starts_with('0')
            && groups.iter().all(|(c, digits)| Some(*c) == separator && (2..=3).contains(&digits.len()))
            && groups.last().is_some_and(|(_, digits)| digits.len() == 3)
    };
    let joined = |groups: &[(char, String)]| groups.iter().fold(first.clone(), |whole, (_, digits)| whole + digits);
    let is_point = matches!(last_separator, '.' | ',');
    if middle.is_empty() {
        let is_thousands = *last_separator != '.' && is_grouped(rest);
        return match (is_thousands, is_point) {
            (true, _) => Some((joined(rest), String::new())),
            (false, true) => Some((first.clone(), last.clone())),
            _ => None,
        };
    }
    if is_grouped(rest) {
        return Some((joined(rest), String::new()));
    }
    let is_other = middle.iter().all(|(separator, _)| separator != last_separator);
    (is_point && is_other && is_grouped(middle)).then(|| (joined(middle), last.clone()))
}

/// `e3`, `E+3`, ` × 10^3`, ` \times 10^{3}`.
fn exponent(characters: &[char], at: usize, number: &mut Number) -> usize {
    let rest = characters.get(at..).unwrap_or_default();
    let (skip, is_braced) = match rest {
        ['e' | 'E', ..] => (1, false),
        _ => {
            let tail: String = rest.iter().take(16).collect();
            let body = tail.trim_start();
            let times = ["\\times", "\\cdot", "×", "·", "*", "x"].iter().find_map(|sign| body.strip_prefix(sign));
            let Some(power) = times.and_then(|body| body.trim_start().strip_prefix("10^")) else { return at };
            let used = tail.chars().count() - power.chars().count();
            (used + usize::from(power.starts_with('{')), power.starts_with('{'))
        }
    };
    let mut end = at + skip;
    let sign = characters.get(end).filter(|c| matches!(c, '+' | '-'));
    end += usize::from(sign.is_some());
    let digits: String = characters.get(end..).unwrap_or_default().iter().take_while(|c| c.is_ascii_digit()).collect();
    end += digits.len();
    let closes = !is_braced || characters.get(end) == Some(&'}');
    let is_word = !is_braced && characters.get(end).is_some_and(|c| c.is_alphabetic());
    let Some(power) = digits.parse::<i64>().ok().filter(|_| closes && !is_word) else { return at };
    if !number.digits.is_empty() {
        let power = if sign == Some(&'-') { -power } else { power };
        number.exponent = number.exponent.saturating_add(power);
    }
    end + usize::from(is_braced)
}

fn denominator(characters: &[char], at: usize, number: &mut Number) -> usize {
    if characters.get(at) != Some(&'/') {
        return at;
    }
    let digits: String =
        characters.get(at + 1..).unwrap_or_default().iter().take_while(|c| c.is_ascii_digit()).collect();
    let end = at + 1 + digits.len();
    // Not 1/2/2024, and no division by nothing.
    let is_date = characters.get(end) == Some(&'/');
    if is_date || digits.len() > MOST_DIGITS || digits.trim_matches('0').is_empty() {
        return at;
    }
    number.denominator = Some(digits);
    end
}

/// A percent sign, or a word for a power of ten.
fn after(characters: &[char], end: usize, mut number: Number) -> (Number, usize) {
    let rest: String = characters.get(end..).unwrap_or_default().iter().take(16).collect();
    let word = rest.trim_start();
    let gap = rest.chars().count() - word.chars().count();
    if word.starts_with('%') {
        number.is_percent = true;
        return (number, end + gap + 1);
    }
    let word: String = word.chars().take_while(|c| c.is_alphabetic()).collect();
    let power = match word.to_lowercase().as_str() {
        "percent" | "prozent" => {
            number.is_percent = true;
            0
        }
        "hundred" => 2,
        "thousand" | "k" => 3,
        "million" | "millionen" | "millions" | "millones" => 6,
        "billion" | "billions" => 9,
        "trillion" | "trillions" => 12,
        _ => return (number, end),
    };
    if !number.digits.is_empty() {
        number.exponent = number.exponent.saturating_add(power);
    }
    (number, end + gap + word.chars().count())
}

fn is_separator(c: char) -> bool {
    matches!(c, ',' | '.' | '\'' | '’' | '_' | '\u{A0}' | '\u{2009}' | '\u{202F}')
}

fn is_currency(c: char) -> bool {
    matches!(c, '$' | '€' | '£' | '¥' | '₹' | '₽' | '₩' | '¢' | '￥')
}

/// With one minus, and the digits of other scripts as ASCII.
fn characters(text: &str) -> Vec<char> {
    const ZEROS: [char; 5] = ['０', '٠', '۰', '०', '০'];
    text.chars()
        .map(|c| match c {
            '−' | '–' | '‐' | '‑' | '－' => '-',
            c if c.is_ascii() => c,
            c => {
                let digit =
                    ZEROS.iter().find_map(|zero| u32::from(c).checked_sub(u32::from(*zero)).filter(|d| *d < 10));
                digit.and_then(|digit| char::from_digit(digit, 10)).unwrap_or(c)
            }
        })
        .collect()
}
