//! Answers as one JSON object.
//!
//! Also read: code fences and text around it, several objects, one more object around it, lists in order and lists of
//! `{"id": ..., "answer": ...}` or `{"1": ...}`, numbers and booleans for strings, line breaks within strings. Nothing behind a break is
//! read: it could be a part of an answer.

use super::scan::{Container, Member, container};
use super::{Flaw, Shape};

pub fn merge(answers: &[&str], shape: &Shape) -> String {
    let members: Vec<String> = answers
        .iter()
        .zip(1..)
        .map(|(answer, id)| match shape {
            Shape::Text => format!("\"{id}\":{}", serde_json::Value::from(*answer)),
            Shape::Object | Shape::Schema(_) => format!("\"{id}\":{answer}"),
        })
        .collect();
    format!("{{{}}}", members.join(","))
}

/// What was complete is kept, whether the model or its limit broke off the rest.
pub fn split(text: &str, count: usize, shape: &Shape) -> Vec<Result<String, Flaw>> {
    let mut found = Found { items: vec![None; count] };
    let mut lists = Vec::new();
    // Of each, whether it is within another one.
    let mut objects = Vec::new();
    let (mut counts_from_zero, mut is_whole) = (false, true);
    let mut from = 0;
    while let Some(at) = text.get(from..).and_then(|rest| rest.find(['{', '['])).map(|offset| from + offset) {
        let outer = container(text, at);
        let (end, is_empty) = (outer.end, outer.members.is_empty());
        let inner = within(text, &outer);
        let is_within = inner.is_some();
        let inner = inner.unwrap_or(outer);
        if !inner.is_object {
            lists.push(inner);
        } else if inner.members.iter().any(|member| index_of(member, count).is_some()) {
            objects.push(is_within);
            // Counted from 0, each would be its neighbour's.
            counts_from_zero |= inner.members.iter().any(|member| member.name.and_then(number) == Some(0));
            is_whole &= inner.end.is_some();
            for member in &inner.members {
                found.put(index_of(member, count), member.value.ok_or(Flaw::CutOff));
            }
        }
        from = match end {
            Some(end) => end,
            // A bracket in a sentence.
            None if is_empty => at + 1,
            None => break,
        };
    }
    lists.retain(|list| !list.members.is_empty());
    match lists.as_slice() {
        // What is within a note beside the answers is none.
        _ if objects.contains(&true) && objects.contains(&false) => found.all(Flaw::Double),
        _ if counts_from_zero => found.all(Flaw::Double),
        // One was left out, and the others may be numbered without it.
        _ if !objects.is_empty() && is_whole && found.lacks_its_end() => found.doubt(),
        _ if !objects.is_empty() => {}
        [] => {}
        [list] => found.list(text, list, shape),
        _ => found.all(Flaw::Double),
    }
    found
        .items
        .into_iter()
        .map(|item| item.unwrap_or(Err(Flaw::Missing)).and_then(|value| take(value, shape)))
        .collect()
}

/// What is within an object of one member that is no answer. One that breaks off could have got more, such as thoughts
/// before the answers: then its name has to say what it is.
fn within<'a>(text: &'a str, outer: &Container<'a>) -> Option<Container<'a>> {
    let [only] = outer.members.as_slice() else { return None };
    let name = only.name.filter(|name| number(name).is_none())?;
    let is_theirs = outer.end.is_some() || name == "\"answers\"";
    (is_theirs && is_container(text, only.at)).then(|| container(text, only.at))
}

fn is_container(text: &str, at: usize) -> bool {
    text.get(at..).is_some_and(|value| value.starts_with(['{', '[']))
}

fn index_of(member: &Member, count: usize) -> Option<usize> {
    index(member.name?, count)
}

fn index(id: &str, count: usize) -> Option<usize> {
    number(id)?.checked_sub(1).filter(|index| *index < count)
}

/// Of an id, which is a JSON string or a number.
fn number(id: &str) -> Option<usize> {
    let id = if id.starts_with('"') { string(id)? } else { id.to_owned() };
    // Some models call them what the pack does.
    let id = id.trim().trim_start_matches("input").trim_start_matches(['_', ' ']);
    let is_number = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit());
    // One that is too long is nobody's.
    is_number.then(|| id.parse().unwrap_or(usize::MAX))
}

/// The text of a JSON string. Line breaks and tabs in it should be escaped, and say what they say.
fn string(json: &str) -> Option<String> {
    serde_json::from_str(json).ok().or_else(|| {
        let escaped = json.replace('\n', "\\n").replace('\r', "\\r").replace('\t', "\\t");
        serde_json::from_str(&escaped).ok()
    })
}

fn take(value: &str, shape: &Shape) -> Result<String, Flaw> {
    if !matches!(shape, Shape::Text) {
        return shape.verify(value).map(|()| value.to_owned());
    }
    match value.as_bytes().first() {
        Some(b'"') => {
            let answer = string(value).ok_or(Flaw::Invalid)?;
            if answer.trim().is_empty() { Err(Flaw::Empty) } else { Ok(answer) }
        }
        // The answer may be it, or a part of it.
        Some(b'{' | b'[') => Err(Flaw::Invalid),
        _ if value == "null" => Err(Flaw::Empty),
        _ => Ok(value.to_owned()),
    }
}

struct Found<'a> {
    items: Vec<Option<Result<&'a str, Flaw>>>,
}

impl<'a> Found<'a> {
    /// None: an item that nobody asked for.
    fn put(&mut self, index: Option<usize>, value: Result<&'a str, Flaw>) {
        let Some(item) = index.and_then(|index| self.items.get_mut(index)) else { return };
        *item = Some(if item.is_some() { Err(Flaw::Double) } else { value });
    }

    /// Whether all from some place on are not there, and all before it are.
    fn lacks_its_end(&self) -> bool {
        let there = self.items.iter().take_while(|item| item.is_some()).count();
        (1..self.items.len()).contains(&there) && self.items.iter().skip(there).all(Option::is_none)
    }

    /// What is there may be another's.
    fn doubt(&mut self) {
        self.items.iter_mut().flatten().filter(|item| item.is_ok()).for_each(|item| *item = Err(Flaw::Missing));
    }

    fn all(&mut self, flaw: Flaw) {
        self.items.fill(Some(Err(flaw)));
    }

    fn list(&mut self, text: &'a str, list: &Container<'a>, shape: &Shape) {
        let count = self.items.len();
        let whole: Vec<&'a str> = list.members.iter().filter_map(|member| member.value).collect();
        let labelled: Vec<_> = whole.iter().filter_map(|value| labelled(value)).collect();
        // A reference in a sentence, such as [1].
        let is_bare = !whole.iter().any(|value| value.starts_with(['"', '{', '[']));
        if is_bare && list.end.is_some() && !text.trim_start().starts_with(['[', '`', '{']) {
            return;
        }
        let last = list.members.last().filter(|member| member.value.is_none());
        let is_labelled = match whole.len() {
            0 => last.is_some_and(|last| partly_labelled(text, last).is_some()),
            length => labelled.len() == length,
        };
        if is_labelled {
            // Each might be the answer as it stands.
            if !matches!(shape, Shape::Text) && whole.iter().any(|value| shape.verify(value).is_ok()) {
                return self.all(Flaw::Invalid);
            }
            if labelled.iter().any(|(id, _)| number(id) == Some(0)) {
                return self.all(Flaw::Double);
            }
            for (id, answer) in labelled {
                self.put(index(id, count), Ok(answer));
            }
            if list.end.is_some() && self.lacks_its_end() {
                return self.doubt();
            }
            let cut = last.and_then(|last| partly_labelled(text, last));
            return self.put(cut.and_then(|id| index(id, count)), Err(Flaw::CutOff));
        }
        let has_id = |value: &&str| !matches!(shape, Shape::Text) && has_id(value);
        match list.members.len() {
            // Are they in the order of the ids, or in their own?
            _ if !labelled.is_empty() || whole.iter().any(has_id) => self.all(Flaw::Invalid),
            length if length > count => self.all(Flaw::Double),
            // One was left out, and nobody knows which.
            length if length < count && list.end.is_some() => self.all(Flaw::Missing),
            _ => {
                for (index, member) in list.members.iter().enumerate() {
                    self.put(Some(index), member.value.ok_or(Flaw::CutOff));
                }
            }
        }
    }
}

fn has_id(value: &str) -> bool {
    let is_id = |name: &str| name == "\"id\"" || number(name).is_some();
    value.starts_with('{') && container(value, 0).members.iter().any(|member| member.name.is_some_and(is_id))
}

/// The id and the answer of an object that has these and nothing else, or the answer under its id.
fn labelled(value: &str) -> Option<(&str, &str)> {
    if !value.starts_with('{') {
        return None;
    }
    let object = container(value, 0);
    object.end?;
    match object.members.as_slice() {
        [Member { name: Some("\"id\""), value: id, .. }, Member { name: Some("\"answer\""), value: answer, .. }]
        | [Member { name: Some("\"answer\""), value: answer, .. }, Member { name: Some("\"id\""), value: id, .. }] => {
            Some(((*id)?, (*answer)?))
        }
        [Member { name: Some(id), value, .. }] if number(id).is_some() => Some((*id, (*value)?)),
        _ => None,
    }
}

/// The id of an object that breaks off behind it.
fn partly_labelled<'a>(text: &'a str, member: &Member) -> Option<&'a str> {
    if !is_container(text, member.at) {
        return None;
    }
    let object = container(text, member.at);
    object.members.iter().find(|member| member.name == Some("\"id\""))?.value
}
