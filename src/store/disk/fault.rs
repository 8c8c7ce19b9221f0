//! What can go wrong with a cache file, said so that somebody can do something about it. What is done is elsewhere.

use std::path::PathBuf;

use rusqlite::ErrorCode;

/// A call never fails by one of these, unless the policy is strict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No SQLite file, or a broken one; where it was moved to.
    Corrupt(Option<PathBuf>),
    /// One entry that is not what was stored.
    Damaged,
    /// The file, or its folder, cannot be written.
    ReadOnly,
    Full,
    Newer {
        version: i32,
    },
    /// A database that is not farthing's.
    Foreign,
    Locked,
    /// On a network file system, where SQLite's locks cannot be trusted.
    Network,
    /// Entries are from the future.
    Clock,
    /// More came in than the disk could take.
    Overflow,
    /// A fork that farthing was not told of.
    Forked,
    /// What the command line was asked for cannot be done.
    Refused(String),
    /// The path is a folder, or a device.
    NoFile,
    Other(String),
}

impl Fault {
    /// A few words for the ledger; the same for all faults of a kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Corrupt(_) => "cache file: corrupt",
            Self::Damaged => "cache file: damaged entry",
            Self::ReadOnly => "cache file: read-only",
            Self::Full => "cache file: disk full",
            Self::Newer { .. } => "cache file: of a newer farthing",
            Self::Foreign => "cache file: not farthing's",
            Self::Locked => "cache file: locked",
            Self::Network => "cache file: network file system",
            Self::Clock => "cache file: clock set back",
            Self::Overflow => "cache file: too slow",
            Self::Forked => "cache file: forked",
            Self::Refused(_) | Self::NoFile | Self::Other(_) => "cache file: failed",
        }
    }

    /// What, where, and what to do about it.
    pub fn explain(&self, path: &std::path::Path) -> String {
        let path = path.display();
        let (what, hint) = match self {
            Self::Corrupt(Some(to)) => {
                return format!(
                    "the cache file is corrupt and was moved aside, a fresh one is begun: {path}\nhint: it is now {}",
                    to.display()
                );
            }
            Self::Corrupt(None) => ("the cache file is corrupt", "move it away, or name another file"),
            Self::Damaged => ("an entry of the cache file is damaged and was left out", "check the disk that it is on"),
            Self::ReadOnly => (
                "the cache file cannot be written; what is in it is read, nothing is added",
                "give this user the right to write the file and its folder",
            ),
            Self::Full => ("the disk of the cache file is full; new answers are not kept on it", "make room on it"),
            Self::Newer { version } => {
                return format!(
                    "the cache file is of a newer farthing (version {version} of its tables, this one knows {}): {path}\n\
                     hint: update farthing, or name another file",
                    super::schema::VERSION
                );
            }
            Self::Foreign => ("a database that is not farthing's; it is left alone", "name another file"),
            Self::Locked => (
                "the cache file has been locked for seconds; what is to be written waits",
                "close what has it open (a database browser, a backup, `farthing cache PATH vacuum`)",
            ),
            Self::Network => (
                "the cache file is on a network file system, where its locks cannot be trusted; it is not used",
                "name a file on a local disk",
            ),
            Self::Clock => (
                "the clock was set back; entries of the cache file that seem to be from the future are left out",
                "set the clock",
            ),
            Self::Overflow => {
                ("the cache file takes less than comes in; some answers are not kept in it", "use a faster disk")
            }
            Self::Forked => (
                "the cache file is not used in this process: it was forked while the file was in use",
                "fork by os.fork or multiprocessing, and not while the file is locked by another program",
            ),
            Self::NoFile => ("the path of the cache file is not that of a file", "name a file"),
            Self::Refused(what) => return format!("{what}: {path}"),
            Self::Other(error) => {
                return format!("the cache file failed ({error}): {path}\nhint: look at its disk and its folder");
            }
        };
        format!("{what}: {path}\nhint: {hint}")
    }

    /// Whether the file itself is broken.
    pub fn is_corrupt(&self) -> bool {
        matches!(self, Self::Corrupt(_))
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Corrupt(None),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed) => {
                Self::Locked
            }
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => Self::ReadOnly,
            _ => Self::Other(error.to_string()),
        }
    }
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind;
        match error.kind() {
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Self::ReadOnly,
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => Self::Full,
            _ => Self::Other(error.to_string()),
        }
    }
}
