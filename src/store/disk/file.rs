//! Opening a cache file: made when it is not there, moved aside when it is broken, refused when it is not ours to touch.
//!
//! What is in its tables is not here (`schema.rs` has them), nor who may be inside SQLite at a time (`gate.rs`).

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, MAIN_DB, OpenFlags, OptionalExtension};

use super::fault::Fault;
use super::gate;
use super::network;
use super::schema::{self, Kind};

/// How long one attempt waits for a lock: a writer, and somebody who reads.
const BUSY: Duration = Duration::from_millis(500);
const READER_BUSY: Duration = Duration::from_millis(100);
/// The lock is tried again after this. SQLite's own handler waits longer each time, and so comes too late among many.
const BUSY_PAUSE: Duration = Duration::from_millis(2);
/// The write-ahead log is cut to this when it has grown beyond it.
const LOG_BYTES: i64 = 8 << 20;

/// A file that can be used.
pub struct Opened {
    pub connection: Connection,
    pub salt: [u8; 32],
    pub identity: Option<Identity>,
    pub writable: bool,
    /// Where a broken file went that was there before.
    pub moved: Option<PathBuf>,
}

/// Which file a path means now; another one after somebody deleted or replaced it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity(u64, u64);

#[cfg(unix)]
pub fn identity(path: &Path) -> Option<Identity> {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).ok().map(|file| Identity(file.dev(), file.ino()))
}

#[cfg(not(unix))]
pub fn identity(path: &Path) -> Option<Identity> {
    fs::metadata(path).ok().map(|_| Identity(0, 0))
}

/// Opens the file at `path`. `salt`: for a file that is made now. `broken`: the file that was found to be corrupt while
/// it was in use; it is moved aside unless somebody has done so by now.
pub fn open(path: &Path, salt: &[u8; 32], broken: Option<Identity>) -> Result<Opened, Fault> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    make_folder(folder)?;
    // SQLite puts its side files where a link leads to.
    let real = fs::canonicalize(path).ok();
    if network::is_network(real.as_deref().and_then(Path::parent).unwrap_or(folder)) {
        return Err(Fault::Network);
    }
    // One process at a time makes the file, or moves it aside.
    let _turn = take_turn(folder);
    if broken.is_some() && identity(path) == broken {
        let moved = move_aside(path)?;
        return Ok(Opened { moved: Some(moved), ..open_once(path, salt)? });
    }
    match open_once(path, salt) {
        Err(Fault::Corrupt(_)) => {
            let moved = move_aside(path)?;
            Ok(Opened { moved: Some(moved), ..open_once(path, salt)? })
        }
        opened => opened,
    }
}

/// A connection that only reads.
pub fn open_reader(path: &Path) -> Result<Connection, Fault> {
    let mut connection = connect(path)?;
    // In a write-ahead log a reader waits for nobody, but for whoever repairs it after a crash.
    connection.busy_handler(Some(|tries| is_patient(tries, READER_BUSY)))?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

/// A connection for small transactions beside the writer's.
pub fn connect_to_book(path: &Path) -> Result<Connection, Fault> {
    let connection = connect(path)?;
    connection.pragma_update(None, "synchronous", "normal")?;
    Ok(connection)
}

/// A connection to a file that is there, whatever it is.
pub fn connect(path: &Path) -> Result<Connection, Fault> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_handler(Some(|tries| is_patient(tries, BUSY)))?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

fn is_patient(tries: i32, busy: Duration) -> bool {
    if gate::is_waited_for() || BUSY_PAUSE * tries.unsigned_abs() > busy {
        return false;
    }
    std::thread::sleep(BUSY_PAUSE);
    true
}

fn open_once(path: &Path, salt: &[u8; 32]) -> Result<Opened, Fault> {
    make_file(path)?;
    let folder_is_closed = |fault| match fault {
        Fault::Other(_) if is_read_only(path) => Fault::ReadOnly,
        fault => fault,
    };
    let mut connection = connect(path).map_err(folder_is_closed)?;
    let writable = !connection.is_readonly(MAIN_DB)? && !is_read_only(path);
    match schema::kind(&connection).map_err(|error| folder_is_closed(error.into()))? {
        Kind::Foreign => return Err(Fault::Foreign),
        Kind::Ours(version) if version > schema::VERSION => return Err(Fault::Newer { version }),
        // Nothing can be read from it that this version understands.
        Kind::Empty | Kind::Ours(..schema::VERSION) if !writable => return Err(Fault::ReadOnly),
        _ => {}
    }
    hide(path);
    if writable {
        connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get::<_, String>(0))?;
        // A crash of the process loses nothing that was committed; one of the machine may lose the last commits.
        connection.pragma_update(None, "synchronous", "normal")?;
        connection.pragma_update(None, "journal_size_limit", LOG_BYTES)?;
        schema::migrate(&mut connection, salt)?;
    }
    let kept = connection.query_row("SELECT value FROM meta WHERE name = 'salt'", (), |row| row.get::<_, Vec<u8>>(0));
    let kept = kept.optional()?.and_then(|salt| <[u8; 32]>::try_from(salt).ok());
    let salt = kept.ok_or(Fault::Corrupt(None))?;
    Ok(Opened { connection, salt, identity: identity(path), writable, moved: None })
}

fn make_folder(folder: &Path) -> Result<(), Fault> {
    if folder.is_dir() {
        return Ok(());
    }
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    Ok(builder.create(folder)?)
}

/// Makes the file if there is none, for its owner's eyes only. SQLite gives its side files the same mode.
fn make_file(path: &Path) -> Result<(), Fault> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Ok(_) => Ok(()),
        Err(_) if path.is_file() => Ok(()),
        Err(_) if path.exists() => Err(Fault::NoFile),
        Err(error) => Err(error.into()),
    }
}

/// Takes the rights of others away. A file that is not ours to change stays as it is.
fn hide(path: &Path) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        if let Ok(found) = fs::metadata(path)
            && found.permissions().mode() & 0o077 != 0
        {
            let _ = fs::set_permissions(path, fs::Permissions::from_mode(found.permissions().mode() & 0o700));
        }
    }
    #[cfg(not(unix))]
    let _ = path;
}

/// Whether the file or its folder, where SQLite has its side files, refuses to be written.
///
/// By asking, not by trying: a file that is opened and closed outside SQLite takes the locks with it that SQLite has on
/// it in this process.
fn is_read_only(path: &Path) -> bool {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    path.exists() && !may_write(path) || !may_write(folder)
}

#[cfg(unix)]
fn may_write(path: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let Ok(name) = std::ffi::CString::new(path.as_os_str().as_bytes()) else { return false };
    // SAFETY: `name` ends with a zero byte and outlives the call.
    unsafe { libc::faccessat(libc::AT_FDCWD, name.as_ptr(), libc::W_OK, libc::AT_EACCESS) == 0 }
}

#[cfg(not(unix))]
fn may_write(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| !found.permissions().readonly())
}

/// Renames a broken file and its log; nothing of it is deleted.
fn move_aside(path: &Path) -> Result<PathBuf, Fault> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let named = |number: u64| with_ending(path, &format!(".corrupt-{}", seconds + number));
    let to = (0..1000).map(named).find(|name| !name.exists()).unwrap_or_else(|| named(1000));
    fs::rename(path, &to)?;
    let log = with_ending(path, "-wal");
    if log.exists() {
        fs::rename(log, with_ending(&to, "-wal"))?;
    }
    let _ = fs::remove_file(with_ending(path, "-shm"));
    Ok(to)
}

pub fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// A lock on the folder itself: no file is left behind by it. None where the platform has no such lock; then two
/// processes that find a file broken in the same moment may move a fresh one aside, which costs what was in it.
fn take_turn(folder: &Path) -> Option<File> {
    let ends = Instant::now() + Duration::from_secs(2);
    let file = File::open(folder).ok()?;
    loop {
        match file.try_lock() {
            Ok(()) => return Some(file),
            Err(fs::TryLockError::WouldBlock) if Instant::now() < ends => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(_) => return None,
        }
    }
}

/// A number that is kept beside the tables.
pub fn number(connection: &Connection, name: &str) -> Result<Option<i64>, Fault> {
    let mut select = connection.prepare_cached("SELECT value FROM meta WHERE name = ?1")?;
    Ok(select.query_row([name], |row| row.get(0)).optional()?)
}

pub fn set_number(connection: &Connection, name: &str, value: i64) -> Result<(), Fault> {
    connection.prepare_cached("INSERT OR REPLACE INTO meta VALUES (?1, ?2)")?.execute((name, value))?;
    Ok(())
}
