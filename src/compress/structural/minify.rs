//! JSON and lines of JSON in fewer bytes: no blanks, no needless escapes, tables for lists of equal objects.

use super::Options;
use super::binary;
use super::json::{Document, Failure, Members, Value, parse};
use super::table::{Columns, columns, write_list, write_row, write_text};

/// Tables make a value deeper, by half at most; with them it is still one that other parsers read.
const MOST_DEPTH_WITH_TABLES: usize = 80;

/// None: the text is no JSON.
pub fn minify(text: &str, options: Options) -> Option<String> {
    match parse(text) {
        Ok(document) => {
            let mut out = String::with_capacity(text.len());
            let writer = Writer { has_tables: takes_tables(&document, options), has_binary: options.binary };
            writer.value("", &document.value, &mut out);
            Some(out)
        }
        Err(Failure::TooDeep) => Some(text.to_owned()),
        Err(Failure::Invalid) => lines(text, options),
    }
}

/// Whether the text is JSON with a schema in it; None: it is no JSON.
pub fn has_schema(text: &str) -> Option<bool> {
    match parse(text) {
        Ok(document) => Some(document.has_schema),
        Err(Failure::TooDeep) => Some(true),
        Err(Failure::Invalid) => None,
    }
}

fn takes_tables(document: &Document, options: Options) -> bool {
    options.tables && !document.has_table && document.depth <= MOST_DEPTH_WITH_TABLES
}

/// Each line a value; equal objects on all of them are one table.
fn lines(text: &str, options: Options) -> Option<String> {
    let lines = text.split('\n').filter(|line| !line.trim_matches([' ', '\t', '\r']).is_empty());
    let documents: Vec<Document> = lines.map(|line| parse(line).ok()).collect::<Option<_>>()?;
    if documents.len() < 2 {
        return None;
    }
    let has_tables = documents.iter().all(|document| takes_tables(document, options));
    let writer = Writer { has_tables, has_binary: options.binary };
    let mut out = String::with_capacity(text.len());
    let rows: Option<Vec<&Members>> = documents.iter().map(|document| members(&document.value)).collect();
    if let Some(rows) = rows.filter(|_| has_tables)
        && let Some((columns, head)) = columns(&rows, "lines")
    {
        out.push_str(&head);
        writer.rows(&columns, &rows, &mut out);
        out.push('}');
        return Some(out);
    }
    for (index, document) in documents.iter().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        writer.value("", &document.value, &mut out);
    }
    Some(out)
}

fn members<'v>(value: &'v Value<'v>) -> Option<&'v Members<'v>> {
    match value {
        Value::Object(members) => Some(members),
        _ => None,
    }
}

fn rows<'v>(value: &'v Value<'v>) -> Option<Vec<&'v Members<'v>>> {
    match value {
        Value::List(items) => items.iter().map(members).collect(),
        _ => None,
    }
}

#[derive(Clone, Copy)]
struct Writer {
    has_tables: bool,
    has_binary: bool,
}

impl Writer {
    fn value(self, name: &str, value: &Value, out: &mut String) {
        match value {
            Value::Raw(text) => out.push_str(text),
            Value::Text(text) => match binary::of_string(name, text).filter(|_| self.has_binary) {
                Some(mark) => write_text(&mark, out),
                None => write_text(text, out),
            },
            Value::List(items) => self.list(name, items, out),
            Value::Object(members) => {
                out.push('{');
                for (index, (name, value)) in members.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    write_text(name, out);
                    out.push(':');
                    self.value(name, value, out);
                }
                out.push('}');
            }
        }
    }

    fn list(self, name: &str, items: &[Value], out: &mut String) {
        let rows: Option<Vec<&Members>> = if self.has_tables { items.iter().map(members).collect() } else { None };
        match rows.and_then(|rows| columns(&rows, "rows").map(|found| (rows, found))) {
            Some((rows, (columns, head))) => {
                out.push_str(&head);
                self.rows(&columns, &rows, out);
                out.push('}');
            }
            None if self.groups(items, out) => {}
            None => write_list(items, out, |item, out| self.value(name, item, out)),
        }
    }

    /// Lists of equal objects in a list, as one table; false: they are none, and nothing is written.
    fn groups(self, items: &[Value], out: &mut String) -> bool {
        let groups: Option<Vec<Vec<&Members>>> = if self.has_tables { items.iter().map(rows).collect() } else { None };
        let Some(groups) = groups else { return false };
        let Some((columns, head)) = columns(&groups.concat(), "groups") else { return false };
        out.push_str(&head);
        write_list(&groups, out, |group, out| self.rows(&columns, group, out));
        out.push('}');
        true
    }

    fn rows<'v>(self, columns: &Columns<'v>, rows: &[&'v Members<'v>], out: &mut String) {
        write_list(rows, out, |row, out| {
            write_row(columns, row, out, &mut |name, value, out| self.value(name, value, out));
        });
    }
}
