//! The arguments of a plain `create` call, walked once for the key (canonical bytes) and, when the answer is not there,
//! once for the body (JSON). What is written is the writer's, what is left out or renamed is decided in the walk.
//!
//! Plain means exact dict, list, tuple, str, int, float, bool and None all the way down: for these the SDK's own request
//! transformation is the identity. Everything else (subclasses, pydantic models, iterators, NaN) is left to the SDK,
//! whose HTTP request then gets its key from the bytes it sends.

use std::collections::{BTreeMap, HashSet};

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

use crate::key::DELIVERY_FIELDS;
use crate::key::encode::Encoder;
use crate::key::json::JsonWriter;

/// Arguments of `create` that are not fields of the body.
const NOT_BODY: [&str; 4] = ["extra_headers", "extra_query", "extra_body", "timeout"];

/// How the answer is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delivery {
    pub stream: bool,
    pub include_usage: bool,
}

/// The arguments could not be encoded here; the call goes the SDK's way.
pub struct NotPlain;

type Plain<T> = Result<T, NotPlain>;

impl<E: Into<PyErr>> From<E> for NotPlain {
    fn from(_: E) -> Self {
        Self
    }
}

/// What the walk needs to know about the SDK and the policy.
pub struct Rules<'a, 'py> {
    /// The names that the method takes.
    pub known: &'a HashSet<String>,
    /// The types of `omit` and `NOT_GIVEN`: a field with such a value is absent.
    pub absent: Bound<'py, PyTuple>,
    /// A field that the SDK adds when the caller does not give it (embeddings: the encoding).
    pub default: Option<(&'a str, &'a str)>,
    pub aliases: &'a BTreeMap<String, String>,
}

/// Where the walk writes to.
pub trait Writer {
    /// Whether fields are written that say how the answer is wanted, not what it is.
    const DELIVERY: bool;

    fn null(&mut self);
    fn bool(&mut self, value: bool);
    /// Decimal digits with an optional minus.
    fn integer(&mut self, literal: &str);
    fn small_integer(&mut self, value: i64);
    fn float(&mut self, value: f64) -> Plain<()>;
    fn string(&mut self, value: &str);
    fn begin_array(&mut self) -> Plain<()>;
    fn begin_object(&mut self) -> Plain<()>;
    fn name(&mut self, name: &str);
    fn end(&mut self) -> Plain<()>;
}

/// Forwards the trait to a type that has the methods already.
macro_rules! writer {
    ($writer:ty, delivery: $delivery:literal) => {
        impl Writer for $writer {
            const DELIVERY: bool = $delivery;

            fn null(&mut self) {
                self.null();
            }
            fn bool(&mut self, value: bool) {
                self.bool(value);
            }
            fn integer(&mut self, literal: &str) {
                self.integer(literal);
            }
            fn small_integer(&mut self, value: i64) {
                self.small_integer(value);
            }
            fn float(&mut self, value: f64) -> Plain<()> {
                self.float(value).map_err(|_| NotPlain)
            }
            fn string(&mut self, value: &str) {
                self.string(value);
            }
            fn begin_array(&mut self) -> Plain<()> {
                self.begin_array().map_err(|_| NotPlain)
            }
            fn begin_object(&mut self) -> Plain<()> {
                self.begin_object().map_err(|_| NotPlain)
            }
            fn name(&mut self, name: &str) {
                self.name(name);
            }
            fn end(&mut self) -> Plain<()> {
                self.end().map_err(|_| NotPlain)
            }
        }
    };
}

writer!(Encoder, delivery: false);
writer!(JsonWriter, delivery: true);

/// Writes the body that the SDK would send for `arguments`; returns how it is wanted, and the model as it was asked for.
pub fn write_call<W: Writer>(
    arguments: &Bound<'_, PyDict>,
    rules: &Rules<'_, '_>,
    writer: &mut W,
) -> Plain<(Delivery, String)> {
    let extra = match arguments.get_item("extra_body")? {
        Some(extra) if !extra.is_none() && !is_absent(&extra, rules)? => {
            Some(extra.cast_exact::<PyDict>().map_err(|_| NotPlain)?.clone())
        }
        _ => None,
    };
    if let Some(query) = arguments.get_item("extra_query")?
        && !query.is_none()
        && !is_absent(&query, rules)?
    {
        return Err(NotPlain);
    }
    let mut delivery = Delivery::default();
    let mut model = String::new();
    let mut has_default = rules.default.is_none();
    writer.begin_object()?;
    for (name, value) in arguments {
        let name = name.cast_exact::<PyString>().map_err(|_| NotPlain)?;
        let name = name.to_str()?;
        if !rules.known.contains(name) {
            return Err(NotPlain);
        }
        if NOT_BODY.contains(&name) || is_absent(&value, rules)? {
            continue;
        }
        if extra.as_ref().is_some_and(|extra| extra.contains(name).unwrap_or(true)) {
            // The extra body wins; what it says about delivery or the model is the SDK's to sort out.
            if DELIVERY_FIELDS.contains(&name) || name == "model" {
                return Err(NotPlain);
            }
            continue;
        }
        if name == "stream" {
            delivery.stream = !value.is_none() && value.cast_exact::<PyBool>().map_err(|_| NotPlain)?.is_true();
        } else if name == "stream_options" {
            delivery.include_usage = asks_usage(&value)?;
        }
        if !W::DELIVERY && DELIVERY_FIELDS.contains(&name) {
            continue;
        }
        if rules.default.is_some_and(|(field, _)| field == name) {
            has_default = true;
        }
        writer.name(name);
        if name == "model" {
            let text = value.cast_exact::<PyString>().map_err(|_| NotPlain)?.to_str()?;
            text.clone_into(&mut model);
            match rules.aliases.get(text) {
                Some(real) => writer.string(real),
                None => writer.string(text),
            }
        } else {
            write(&value, writer)?;
        }
    }
    if let Some(extra) = extra {
        for (name, value) in &extra {
            let name = name.cast_exact::<PyString>().map_err(|_| NotPlain)?;
            let name = name.to_str()?;
            if DELIVERY_FIELDS.contains(&name) || name == "model" || is_absent(&value, rules)? {
                return Err(NotPlain);
            }
            if rules.default.is_some_and(|(field, _)| field == name) {
                return Err(NotPlain);
            }
            writer.name(name);
            write(&value, writer)?;
        }
    }
    if let (false, Some((name, value))) = (has_default, rules.default) {
        writer.name(name);
        writer.string(value);
    }
    writer.end()?;
    if model.is_empty() { Err(NotPlain) } else { Ok((delivery, model)) }
}

fn is_absent(value: &Bound<'_, PyAny>, rules: &Rules<'_, '_>) -> Plain<bool> {
    let kind = value.get_type();
    Ok(rules.absent.iter().any(|absent| absent.is(&kind)))
}

fn asks_usage(options: &Bound<'_, PyAny>) -> Plain<bool> {
    if options.is_none() {
        return Ok(false);
    }
    let options = options.cast_exact::<PyDict>().map_err(|_| NotPlain)?;
    match options.get_item("include_usage")? {
        None => Ok(false),
        Some(value) => Ok(value.cast_exact::<PyBool>().map_err(|_| NotPlain)?.is_true()),
    }
}

/// The writers refuse what is nested too deep, which also bounds this recursion.
fn write<W: Writer>(value: &Bound<'_, PyAny>, writer: &mut W) -> Plain<()> {
    if let Ok(text) = value.cast_exact::<PyString>() {
        // Fails on lone surrogates.
        writer.string(text.to_str()?);
    } else if let Ok(members) = value.cast_exact::<PyDict>() {
        writer.begin_object()?;
        for (name, value) in members {
            let name = name.cast_exact::<PyString>().map_err(|_| NotPlain)?;
            writer.name(name.to_str()?);
            write(&value, writer)?;
        }
        writer.end()?;
    } else if let Ok(items) = value.cast_exact::<PyList>() {
        writer.begin_array()?;
        for item in items {
            write(&item, writer)?;
        }
        writer.end()?;
    } else if let Ok(items) = value.cast_exact::<PyTuple>() {
        writer.begin_array()?;
        for item in items {
            write(&item, writer)?;
        }
        writer.end()?;
    } else if value.is_none() {
        writer.null();
    } else if let Ok(value) = value.cast_exact::<PyBool>() {
        writer.bool(value.is_true());
    } else if let Ok(number) = value.cast_exact::<PyFloat>() {
        writer.float(number.value())?;
    } else if let Ok(number) = value.cast_exact::<PyInt>() {
        match number.extract::<i64>() {
            Ok(small) => writer.small_integer(small),
            Err(_) => writer.integer(number.str()?.to_str()?),
        }
    } else {
        return Err(NotPlain);
    }
    Ok(())
}
