//! A cache file for the command line: JSON texts out of `store/disk/admin.rs`.

use std::path::PathBuf;
use std::sync::Arc;

use pyo3::prelude::*;

use super::error::{CoreError, guarded};
use super::state::{state, without_gil};
use crate::budget::Row;
use crate::store::disk::admin::{self, Choice};
use crate::store::disk::fault::Fault;

/// A file that `Cache(path=...)` made.
#[pyclass(frozen)]
pub struct CacheFile(Arc<admin::CacheFile>);

impl CacheFile {
    fn ask<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&admin::CacheFile) -> Result<T, Fault> + Send,
    ) -> PyResult<T> {
        guarded(|| without_gil(py, || work(&self.0)).map_err(|fault| explained(&self.0, &fault)))
    }
}

fn explained(file: &admin::CacheFile, fault: &Fault) -> PyErr {
    CoreError::new_err(fault.explain(file.path()))
}

#[pymethods]
impl CacheFile {
    #[new]
    fn new(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let opened = without_gil(py, || admin::CacheFile::open(&path, &state().gate));
        let opened = opened.map_err(|fault| CoreError::new_err(fault.explain(&path)))?;
        Ok(Self(Arc::new(opened)))
    }

    fn stats(&self, py: Python<'_>) -> PyResult<String> {
        self.ask(py, |file| file.stats().map(|stats| stats.to_string()))
    }

    fn list(&self, py: Python<'_>, tag: Option<String>, model: Option<String>, most: u32) -> PyResult<String> {
        self.ask(py, |file| file.list(&Choice { tag, model }, most).map(|list| list.to_string()))
    }

    fn show(&self, py: Python<'_>, entry: &str) -> PyResult<Option<String>> {
        self.ask(py, |file| Ok(file.show(entry)?.map(|shown| shown.to_string())))
    }

    fn invalidate(&self, py: Python<'_>, tag: Option<String>, model: Option<String>) -> PyResult<u64> {
        self.ask(py, |file| file.invalidate(&Choice { tag, model }))
    }

    fn remove(&self, py: Python<'_>, entry: &str) -> PyResult<bool> {
        self.ask(py, |file| file.remove(entry))
    }

    /// Bytes before and after, and whether that is all.
    fn vacuum(&self, py: Python<'_>) -> PyResult<(u64, u64, bool)> {
        self.ask(py, admin::CacheFile::vacuum)
    }

    /// The ledger's report from `since` (seconds since 1970) on.
    fn report(&self, py: Python<'_>, since: i64) -> PyResult<String> {
        self.ask(py, |file| json(&file.report(since)?))
    }

    /// How the budgets stand, as JSON.
    fn budget(&self, py: Python<'_>) -> PyResult<String> {
        self.ask(py, |file| json(&file.budget()?.iter().map(Row::of_file).collect::<Vec<_>>()))
    }

    /// The same by day: its beginning in seconds since 1970, and its report.
    fn report_by_day(&self, py: Python<'_>, since: i64) -> PyResult<Vec<(i64, String)>> {
        self.ask(py, |file| file.report_by_day(since)?.iter().map(|(day, report)| Ok((*day, json(report)?))).collect())
    }

    /// Lines, and where to go on.
    fn export(&self, py: Python<'_>, after: Option<i64>) -> PyResult<(Vec<String>, Option<i64>)> {
        self.ask(py, |file| file.export(after))
    }

    /// Lines after the first one: how many entries that were, or which line (from 0 on) is wrong, and what it is.
    fn import_lines(&self, py: Python<'_>, lines: Vec<String>) -> PyResult<(u64, Option<(usize, String)>)> {
        self.ask(py, |file| {
            Ok(match file.import(&lines) {
                Ok(count) => (count, None),
                Err((line, fault)) => (0, Some((line, fault.explain(file.path())))),
            })
        })
    }
}

/// Makes ready for an import that begins with `first`.
#[pyfunction]
pub fn prepare_import(py: Python<'_>, path: PathBuf, first: &str) -> PyResult<()> {
    let done = without_gil(py, || admin::CacheFile::prepare_import(&path, &state().gate, first));
    done.map_err(|fault| CoreError::new_err(fault.explain(&path)))
}

fn json<T: serde::Serialize>(value: &T) -> Result<String, Fault> {
    serde_json::to_string(value).map_err(|error| Fault::Other(error.to_string()))
}
