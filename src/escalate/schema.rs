//! Whether a JSON value keeps to a JSON schema (2020-12, and the older forms of tuples and definitions).
//!
//! Three answers, because a keyword that is not known here must not make a value wrong, not even under `not`: it holds,
//! it fails, or it cannot be said. Not checked: `format`, `multipleOf`, `uniqueItems`, `contains`, `dependent*`,
//! `propertyNames`, `unevaluated*`, references to other documents, and patterns that a regular expression without
//! look-around and back-references cannot say. Work and depth are bounded, since both texts come from outside.

use std::collections::HashMap;

use regex::{Regex, RegexBuilder};
use serde_json::{Map, Value};

type Object = Map<String, Value>;

/// Schemas within schemas, references included.
const MOST_DEEP: usize = 64;
/// Keywords and values that are looked at. What is left then cannot be said.
const MOST_STEPS: usize = 200_000;
/// What compiling a pattern counts as, and how big its automaton may get, in bytes.
const PATTERN_STEPS: usize = 500;
const PATTERN_SIZE: usize = 1 << 18;

/// Ordered: of several that must all hold, the least counts; of several of which one must hold, the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    Fails,
    Unsure,
    Holds,
}

/// Checks a value against a schema.
pub fn check(schema: &Value, value: &Value) -> Verdict {
    Checker { root: schema, steps: MOST_STEPS, patterns: HashMap::new() }.check(schema, value, 0)
}

struct Checker<'a> {
    root: &'a Value,
    steps: usize,
    /// None: it is of another dialect, or too big.
    patterns: HashMap<&'a str, Option<Regex>>,
}

impl<'a> Checker<'a> {
    fn check(&mut self, schema: &'a Value, value: &Value, depth: usize) -> Verdict {
        let keywords = match schema {
            Value::Bool(true) => return Verdict::Holds,
            Value::Bool(false) => return Verdict::Fails,
            Value::Object(keywords) => keywords,
            _ => return Verdict::Unsure,
        };
        if depth > MOST_DEEP {
            return Verdict::Unsure;
        }
        let mut verdict = Verdict::Holds;
        for (keyword, wanted) in keywords {
            if !self.spend(1) {
                return verdict.min(Verdict::Unsure);
            }
            verdict = verdict.min(self.keyword(keywords, keyword, wanted, value, depth + 1));
            if verdict == Verdict::Fails {
                break;
            }
        }
        verdict
    }

    fn spend(&mut self, steps: usize) -> bool {
        let left = self.steps.checked_sub(steps);
        self.steps = left.unwrap_or(0);
        left.is_some()
    }

    fn keyword(&mut self, all: &'a Object, keyword: &str, wanted: &'a Value, value: &Value, depth: usize) -> Verdict {
        match keyword {
            "type" => of_type(wanted, value),
            "enum" => match wanted.as_array() {
                Some(known) if self.spend(known.len()) => verdict(known.iter().any(|one| is_equal(one, value))),
                _ => Verdict::Unsure,
            },
            "const" => verdict(is_equal(wanted, value)),
            "$ref" => match wanted.as_str().and_then(|reference| self.resolve(reference)) {
                Some(schema) => self.check(schema, value, depth),
                None => Verdict::Unsure,
            },
            "allOf" => self.each(wanted, value, depth).into_iter().min().unwrap_or(Verdict::Unsure),
            "anyOf" => self.each(wanted, value, depth).into_iter().max().unwrap_or(Verdict::Unsure),
            "oneOf" => one_of(&self.each(wanted, value, depth)),
            "not" => negated(self.check(wanted, value, depth)),
            "if" => self.conditional(all, wanted, value, depth),
            "properties"
            | "patternProperties"
            | "additionalProperties"
            | "required"
            | "minProperties"
            | "maxProperties" => match value {
                Value::Object(fields) => self.object(all, keyword, wanted, fields, depth),
                _ => Verdict::Holds,
            },
            "items" | "prefixItems" | "additionalItems" | "minItems" | "maxItems" => match value {
                Value::Array(items) => self.array(all, keyword, wanted, items, depth),
                _ => Verdict::Holds,
            },
            "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" => match value.as_f64() {
                Some(number) => in_range(keyword, wanted, number),
                None => Verdict::Holds,
            },
            "minLength" | "maxLength" | "pattern" => match value {
                Value::String(text) => self.text(keyword, wanted, text),
                _ => Verdict::Holds,
            },
            // They say nothing of values, or are read with others.
            "then" | "else" | "$defs" | "definitions" | "title" | "description" | "default" | "examples"
            | "example" | "$schema" | "$comment" | "$anchor" | "deprecated" | "readOnly" | "writeOnly" | "strict" => {
                Verdict::Holds
            }
            _ => Verdict::Unsure,
        }
    }

    fn each(&mut self, schemas: &'a Value, value: &Value, depth: usize) -> Vec<Verdict> {
        let schemas = schemas.as_array().map(Vec::as_slice).unwrap_or_default();
        schemas.iter().map(|schema| self.check(schema, value, depth)).collect()
    }

    fn conditional(&mut self, all: &'a Object, condition: &'a Value, value: &Value, depth: usize) -> Verdict {
        let branch = match self.check(condition, value, depth) {
            Verdict::Holds => all.get("then"),
            Verdict::Fails => all.get("else"),
            Verdict::Unsure => return Verdict::Unsure,
        };
        branch.map_or(Verdict::Holds, |schema| self.check(schema, value, depth))
    }

    fn object(&mut self, all: &'a Object, keyword: &str, wanted: &'a Value, fields: &Object, depth: usize) -> Verdict {
        match (keyword, wanted) {
            ("required", Value::Array(names)) if self.spend(names.len()) => {
                verdict(names.iter().filter_map(Value::as_str).all(|name| fields.contains_key(name)))
            }
            ("properties", Value::Object(known)) => {
                let found = fields.iter().filter_map(|(name, value)| Some((known.get(name)?, value)));
                self.lowest(found, depth)
            }
            ("patternProperties", Value::Object(known)) => {
                let mut lowest = Verdict::Holds;
                for (pattern, schema) in known {
                    for (name, value) in fields {
                        lowest = lowest.min(match self.matches(pattern, name) {
                            Some(true) => self.check(schema, value, depth),
                            Some(false) => Verdict::Holds,
                            None => Verdict::Unsure,
                        });
                    }
                }
                lowest
            }
            ("additionalProperties", schema) => {
                let known = all.get("properties").and_then(Value::as_object);
                let patterns = all.get("patternProperties").and_then(Value::as_object);
                let mut lowest = Verdict::Holds;
                for (name, value) in fields {
                    if known.is_some_and(|known| known.contains_key(name)) {
                        continue;
                    }
                    lowest = lowest.min(match self.is_patterned(patterns, name) {
                        Some(true) => Verdict::Holds,
                        Some(false) => self.check(schema, value, depth),
                        None => Verdict::Unsure,
                    });
                }
                lowest
            }
            ("minProperties", least) => at_least(fields.len(), least),
            ("maxProperties", most) => at_most(fields.len(), most),
            _ => Verdict::Unsure,
        }
    }

    fn is_patterned(&mut self, patterns: Option<&'a Object>, name: &str) -> Option<bool> {
        for (pattern, _) in patterns.into_iter().flatten() {
            if self.matches(pattern, name)? {
                return Some(true);
            }
        }
        Some(false)
    }

    fn lowest<'v>(&mut self, pairs: impl Iterator<Item = (&'a Value, &'v Value)>, depth: usize) -> Verdict {
        let mut lowest = Verdict::Holds;
        for (schema, value) in pairs {
            if !self.spend(1) {
                return lowest.min(Verdict::Unsure);
            }
            lowest = lowest.min(self.check(schema, value, depth));
            if lowest == Verdict::Fails {
                break;
            }
        }
        lowest
    }

    fn array(&mut self, all: &'a Object, keyword: &str, wanted: &'a Value, items: &[Value], depth: usize) -> Verdict {
        match (keyword, wanted) {
            ("prefixItems", Value::Array(schemas)) | ("items", Value::Array(schemas)) => {
                self.lowest(schemas.iter().zip(items), depth)
            }
            ("items" | "additionalItems", schema) => {
                let tuple = match keyword {
                    "items" => all.get("prefixItems"),
                    _ => all.get("items"),
                };
                let before = match (keyword, tuple) {
                    (_, Some(Value::Array(tuple))) => tuple.len(),
                    // Beside a single schema it says nothing.
                    ("additionalItems", _) => return Verdict::Holds,
                    _ => 0,
                };
                self.lowest(items.iter().skip(before).map(|item| (schema, item)), depth)
            }
            ("minItems", least) => at_least(items.len(), least),
            ("maxItems", most) => at_most(items.len(), most),
            _ => Verdict::Unsure,
        }
    }

    fn text(&mut self, keyword: &str, wanted: &'a Value, text: &str) -> Verdict {
        match (keyword, wanted) {
            ("minLength", least) => at_least(text.chars().count(), least),
            ("maxLength", most) => at_most(text.chars().count(), most),
            ("pattern", Value::String(pattern)) => self.matches(pattern, text).map_or(Verdict::Unsure, verdict),
            _ => Verdict::Unsure,
        }
    }

    fn matches(&mut self, pattern: &'a str, text: &str) -> Option<bool> {
        if !self.patterns.contains_key(pattern) {
            let may = self.spend(PATTERN_STEPS);
            self.patterns.insert(pattern, may.then(|| compile(pattern)).flatten());
        }
        if !self.spend(1 + text.len() / 256) {
            return None;
        }
        Some(self.patterns.get(pattern)?.as_ref()?.is_match(text))
    }

    /// The schema that a reference within the document names.
    fn resolve(&self, reference: &str) -> Option<&'a Value> {
        let pointer = reference.strip_prefix('#')?;
        // Names are percent-encoded in a reference; those that need it are too rare to decode.
        if pointer.contains('%') { None } else { self.root.pointer(pointer) }
    }
}

/// None: what it says here, it may not say in ECMAScript, for which it was written.
fn compile(pattern: &str) -> Option<Regex> {
    let plain = pattern.replace("(?:", "(");
    if ["[[", "&&", "--", "~~", "(?", "\\A", "\\z", "[^]", "[]"].iter().any(|sign| plain.contains(sign)) {
        return None;
    }
    RegexBuilder::new(pattern).size_limit(PATTERN_SIZE).nest_limit(64).build().ok()
}

fn verdict(holds: bool) -> Verdict {
    if holds { Verdict::Holds } else { Verdict::Fails }
}

fn negated(verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::Holds => Verdict::Fails,
        Verdict::Unsure => Verdict::Unsure,
        Verdict::Fails => Verdict::Holds,
    }
}

fn one_of(verdicts: &[Verdict]) -> Verdict {
    let count = |verdict: Verdict| verdicts.iter().filter(|one| **one == verdict).count();
    match (count(Verdict::Holds), count(Verdict::Unsure)) {
        (0, 0) => verdict(verdicts.is_empty()),
        (1, 0) => Verdict::Holds,
        (0 | 1, _) => Verdict::Unsure,
        _ => Verdict::Fails,
    }
}

fn of_type(wanted: &Value, value: &Value) -> Verdict {
    match wanted {
        Value::String(name) => is_of(name, value),
        Value::Array(names) => {
            let verdicts = names.iter().map(|name| name.as_str().map_or(Verdict::Unsure, |name| is_of(name, value)));
            verdicts.max().unwrap_or(Verdict::Unsure)
        }
        _ => Verdict::Unsure,
    }
}

fn is_of(name: &str, value: &Value) -> Verdict {
    verdict(match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        // 1.0 is one, too.
        "integer" => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        _ => return Verdict::Unsure,
    })
}

/// As JSON schema has it: numbers by their value.
fn is_equal(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(left), Value::Number(right)) => left == right || left.as_f64() == right.as_f64(),
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| is_equal(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(name, left)| right.get(name).is_some_and(|right| is_equal(left, right)))
        }
        _ => one == other,
    }
}

fn in_range(keyword: &str, wanted: &Value, number: f64) -> Verdict {
    // A boolean in the oldest form.
    let Some(bound) = wanted.as_f64() else { return Verdict::Unsure };
    verdict(match keyword {
        "minimum" => number >= bound,
        "maximum" => number <= bound,
        "exclusiveMinimum" => number > bound,
        _ => number < bound,
    })
}

fn at_least(count: usize, least: &Value) -> Verdict {
    least.as_u64().map_or(Verdict::Unsure, |least| verdict(count as u64 >= least))
}

fn at_most(count: usize, most: &Value) -> Verdict {
    most.as_u64().map_or(Verdict::Unsure, |most| verdict(count as u64 <= most))
}
