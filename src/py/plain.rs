//! The arguments of a plain `create` call as canonical bytes, without building JSON first.
//!
//! Plain means exact dict, list, tuple, str, int, float, bool and None all the way down: for these the SDK's own request
//! transformation is the identity. Everything else (subclasses, pydantic models, iterators, NaN) is left to the SDK,
//! whose HTTP request then gets its key from the bytes it sends.

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

use crate::key::DELIVERY_FIELDS;
use crate::key::encode::Encoder;

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
    /// The types of `omit` and `NOT_GIVEN`: a field with such a value is absent.
    pub absent: &'a Bound<'py, PyTuple>,
    /// A field that the SDK adds when the caller does not give it (embeddings: the encoding).
    pub default: Option<(&'a str, &'a str)>,
    pub alias: &'a dyn Fn(&str) -> Option<String>,
}

/// Encodes the body that the SDK would send for `arguments`; returns how it is wanted, and the model as it was asked for.
pub fn encode_call(
    arguments: &Bound<'_, PyDict>,
    rules: &Rules<'_, '_>,
    encoder: &mut Encoder,
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
    encoder.begin_object().map_err(|_| NotPlain)?;
    for (name, value) in arguments {
        let name = name.cast_exact::<PyString>().map_err(|_| NotPlain)?;
        let name = name.to_str()?;
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
            continue;
        }
        if name == "stream_options" {
            delivery.include_usage = asks_usage(&value)?;
            continue;
        }
        if rules.default.is_some_and(|(field, _)| field == name) {
            has_default = true;
        }
        encoder.name(name);
        if name == "model" {
            let text = value.cast_exact::<PyString>().map_err(|_| NotPlain)?.to_str()?;
            text.clone_into(&mut model);
            match (rules.alias)(text) {
                Some(real) => encoder.string(&real),
                None => encoder.string(text),
            }
        } else {
            encode(&value, encoder)?;
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
            encoder.name(name);
            encode(&value, encoder)?;
        }
    }
    if let (false, Some((name, value))) = (has_default, rules.default) {
        encoder.name(name);
        encoder.string(value);
    }
    encoder.end().map_err(|_| NotPlain)?;
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

/// The encoder refuses what is nested too deep, which also bounds this recursion.
fn encode(value: &Bound<'_, PyAny>, encoder: &mut Encoder) -> Plain<()> {
    if let Ok(text) = value.cast_exact::<PyString>() {
        // Fails on lone surrogates.
        encoder.string(text.to_str()?);
    } else if let Ok(members) = value.cast_exact::<PyDict>() {
        encoder.begin_object().map_err(|_| NotPlain)?;
        for (name, value) in members {
            let name = name.cast_exact::<PyString>().map_err(|_| NotPlain)?;
            encoder.name(name.to_str()?);
            encode(&value, encoder)?;
        }
        encoder.end().map_err(|_| NotPlain)?;
    } else if let Ok(items) = value.cast_exact::<PyList>() {
        encoder.begin_array().map_err(|_| NotPlain)?;
        for item in items {
            encode(&item, encoder)?;
        }
        encoder.end().map_err(|_| NotPlain)?;
    } else if let Ok(items) = value.cast_exact::<PyTuple>() {
        encoder.begin_array().map_err(|_| NotPlain)?;
        for item in items {
            encode(&item, encoder)?;
        }
        encoder.end().map_err(|_| NotPlain)?;
    } else if value.is_none() {
        encoder.null();
    } else if let Ok(value) = value.cast_exact::<PyBool>() {
        encoder.bool(value.is_true());
    } else if let Ok(number) = value.cast_exact::<PyFloat>() {
        encoder.float(number.value()).map_err(|_| NotPlain)?;
    } else if let Ok(number) = value.cast_exact::<PyInt>() {
        match number.extract::<i64>() {
            Ok(small) => encoder.small_integer(small),
            Err(_) => encoder.integer(number.str()?.to_str()?),
        }
    } else {
        return Err(NotPlain);
    }
    Ok(())
}
