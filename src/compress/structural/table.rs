//! Lists of equal objects as tables, and back.
//!
//! `[{"a":1,"b":{"c":2}},{"a":3,"b":{"c":4}}]` is `{"columns":["a",{"b":["c"]}],"rows":[[1,[2]],[3,[4]]]}`: a column that
//! is an object again has columns of its own. Lines of JSON have "lines" for "rows", lists of such lists "groups".

use std::borrow::Cow;

use super::json::{Members, Value, parse};

/// Members that may stand in another order in each object; with more of them, looking for each would take too long.
const MOST_SHUFFLED: usize = 64;

pub struct Column<'v> {
    name: &'v str,
    inner: Option<Columns<'v>>,
}

pub type Columns<'v> = Vec<Column<'v>>;

/// The columns that all these objects have; None: they differ, or there is nothing to gain.
pub fn columns<'v>(rows: &[&'v Members<'v>], word: &str) -> Option<(Columns<'v>, String)> {
    let columns = common(rows)?;
    let mut head = String::from("{\"columns\":");
    write_columns(&columns, &mut head);
    head.push_str(",\"");
    head.push_str(word);
    head.push_str("\":");
    // Brackets and commas are as many either way, but for the one that closes the table.
    (rows.len() * names(&columns) > head.len() + 1).then_some((columns, head))
}

fn common<'v>(rows: &[&'v Members<'v>]) -> Option<Columns<'v>> {
    let (first, others) = rows.split_first()?;
    if others.is_empty() || first.is_empty() || others.iter().any(|row| row.len() != first.len()) {
        return None;
    }
    let mut sorted: Vec<&str> = first.iter().map(|(name, _)| &**name).collect();
    sorted.sort_unstable();
    // With an escape the same name can be written in two ways.
    if sorted.iter().zip(sorted.iter().skip(1)).any(|(one, next)| one == next)
        || sorted.iter().any(|name| name.contains("\\u"))
    {
        return None;
    }
    let mut columns = Columns::with_capacity(first.len());
    for (index, (name, value)) in first.iter().enumerate() {
        let mut inner = vec![value];
        for row in others {
            inner.push(cell(row, index, name)?);
        }
        let objects: Option<Vec<&Members>> = inner
            .into_iter()
            .map(|value| match value {
                Value::Object(members) => Some(members),
                _ => None,
            })
            .collect();
        columns.push(Column { name, inner: objects.and_then(|objects| common(&objects)) });
    }
    Some(columns)
}

fn cell<'v>(row: &'v Members<'v>, index: usize, name: &str) -> Option<&'v Value<'v>> {
    match row.get(index) {
        Some((found, value)) if found == name => Some(value),
        _ if row.len() > MOST_SHUFFLED => None,
        _ => row.iter().find(|(found, _)| found == name).map(|(_, value)| value),
    }
}

/// What the names take in one object, with quotation marks and colons.
fn names(columns: &Columns) -> usize {
    columns.iter().map(|column| column.name.len() + 3 + column.inner.as_ref().map_or(0, names)).sum()
}

fn write_columns(columns: &Columns, out: &mut String) {
    write_list(columns, out, |column, out| {
        out.push_str(if column.inner.is_some() { "{\"" } else { "\"" });
        out.push_str(column.name);
        out.push('"');
        if let Some(inner) = &column.inner {
            out.push(':');
            write_columns(inner, out);
            out.push('}');
        }
    });
}

/// Each cell of the row in the order of the columns; `write` is given it with the name that it had.
pub fn write_row<'v>(
    columns: &Columns<'v>,
    row: &'v Members<'v>,
    out: &mut String,
    write: &mut impl FnMut(&str, &'v Value<'v>, &mut String),
) {
    write_list(columns.iter().enumerate(), out, |(index, column), out| {
        match (cell(row, index, column.name), &column.inner) {
            (Some(Value::Object(members)), Some(inner)) => write_row(inner, members, out, write),
            (Some(value), _) => write(column.name, value, out),
            // Not for columns of this row.
            (None, _) => out.push_str("null"),
        }
    });
}

/// The JSON, or lines of JSON, that a text with tables stands for. Only for what `compress` has written: a text with such
/// an object of its own gets no tables, and here it would be taken for one.
pub fn expand(text: &str) -> String {
    if let Ok(document) = parse(text) {
        let mut out = String::with_capacity(text.len());
        match table(&document.value, "lines") {
            Some((columns, rows)) => {
                for (index, row) in rows.iter().enumerate() {
                    if index > 0 {
                        out.push('\n');
                    }
                    write_object(columns, row, &mut out);
                }
            }
            None => write_expanded(&document.value, &mut out),
        }
        return out;
    }
    let one = |line: &str| match parse(line) {
        Ok(_) => expand(line),
        Err(_) => line.to_owned(),
    };
    text.split('\n').map(one).collect::<Vec<_>>().join("\n")
}

fn table<'v>(value: &'v Value<'v>, word: &str) -> Option<(&'v [Value<'v>], &'v [Value<'v>])> {
    match value {
        Value::Object(members) => match members.as_slice() {
            [(first, Value::List(columns)), (second, Value::List(rows))] if first == "columns" && second == word => {
                Some((columns, rows))
            }
            _ => None,
        },
        _ => None,
    }
}

fn write_expanded(value: &Value, out: &mut String) {
    match value {
        Value::Raw(text) => out.push_str(text),
        Value::Text(text) => write_text(text, out),
        Value::List(items) => write_list(items, out, write_expanded),
        Value::Object(members) => match table(value, "rows") {
            Some((columns, rows)) => write_list(rows, out, |row, out| write_object(columns, row, out)),
            None if let Some((columns, groups)) = table(value, "groups") => {
                write_list(groups, out, |group, out| match group {
                    Value::List(rows) => write_list(rows, out, |row, out| write_object(columns, row, out)),
                    _ => write_expanded(group, out),
                });
            }
            None => {
                let members: Vec<(&Cow<str>, &Value)> = members.iter().map(|(name, value)| (name, value)).collect();
                write_members(&members, out, |value, out| write_expanded(value, out));
            }
        },
    }
}

fn write_object(columns: &[Value], row: &Value, out: &mut String) {
    let Value::List(cells) = row else { return write_expanded(row, out) };
    out.push('{');
    for (index, (column, cell)) in columns.iter().zip(cells).enumerate() {
        if index > 0 {
            out.push(',');
        }
        match column {
            Value::Text(name) => {
                write_text(name, out);
                out.push(':');
                write_expanded(cell, out);
            }
            Value::Object(members) => {
                if let [(name, Value::List(inner))] = members.as_slice() {
                    write_text(name, out);
                    out.push(':');
                    write_object(inner, cell, out);
                }
            }
            _ => {}
        }
    }
    out.push('}');
}

pub fn write_text(text: &str, out: &mut String) {
    out.push('"');
    out.push_str(text);
    out.push('"');
}

pub fn write_list<T>(items: impl IntoIterator<Item = T>, out: &mut String, mut write: impl FnMut(T, &mut String)) {
    out.push('[');
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write(item, out);
    }
    out.push(']');
}

fn write_members<'v>(
    members: &[(&Cow<str>, &'v Value<'v>)],
    out: &mut String,
    mut write: impl FnMut(&'v Value<'v>, &mut String),
) {
    out.push('{');
    for (index, (name, value)) in members.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write_text(name, out);
        out.push(':');
        write(value, out);
    }
    out.push('}');
}
