//! The store on disk: what is written is what is read, whatever it is; versions; many stores on one file.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use farthing::exchange::Endpoint;
use farthing::key::Key;
use farthing::ledger::{Money, Usage};
use farthing::store::disk::admin::{CacheFile, Choice};
use farthing::store::disk::fault::Fault;
use farthing::store::disk::gate::Gate;
use farthing::store::disk::network::is_network_kind;
use farthing::store::disk::schema::{self, VERSION};
use farthing::store::disk::{DiskStore, Settings, file};
use farthing::store::memory::MemoryStore;
use farthing::store::{About, Entry};
use http::HeaderMap;
use proptest::prelude::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// A folder of its own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("farthing-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn path(&self) -> PathBuf {
        self.0.join("answers.db")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn store(folder: &Folder, gate: &Arc<Gate>) -> DiskStore {
    let settings = Settings { path: folder.path(), max_bytes: 1 << 30, namespace: String::new() };
    DiskStore::open(settings, [7; 32], gate, MemoryStore::new(1 << 20))
}

fn entry(body: &[u8], tag: Option<&str>, usage: Option<Usage>, cost: Option<i128>, ttl: Option<Duration>) -> Entry {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", "application/json".parse().unwrap());
    headers.insert("x-request-id", "req_1".parse().unwrap());
    headers.insert("set-cookie", "secret=1".parse().unwrap());
    let body = Bytes::copy_from_slice(body);
    let cost = cost.map(Money::from_pico);
    let (endpoint, tag) = (Endpoint::Chat, tag.map(Into::into));
    let about = About {
        endpoint,
        usage,
        model_answered: Some("m".into()),
        cost,
        tag,
        ttl,
        is_own_ttl: false,
        is_deterministic: false,
    };
    Entry::new(about, body, &headers)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_is_written_is_read(
        key in any::<[u8; 32]>(),
        body in prop_oneof![prop::collection::vec(any::<u8>(), 0..4000), Just(b"again ".repeat(4000))],
        tag in prop::option::of(".{1,20}"),
        cost in prop::option::of(0_i128..1 << 100),
        prompt in any::<u64>(),
        ttl in prop::option::of(60_u64..1 << 31),
    ) {
        let folder = Folder::new();
        let gate = Arc::default();
        let usage = Some(Usage { prompt, service_tier: Some("flex".into()), ..Usage::default() });
        let written = entry(&body, tag.as_deref(), usage.clone(), cost, ttl.map(Duration::from_secs));
        let one = store(&folder, &gate);
        one.put(Key(key), &written);
        one.flush(PATIENCE).wait().unwrap();
        let read = store(&folder, &gate).get(&Key(key), None).unwrap();
        prop_assert_eq!(&read.body, &written.body);
        prop_assert_eq!(read.head(), written.head());
        prop_assert!(!read.head().windows(6).any(|part| part == b"secret"));
        prop_assert_eq!(read.about.tag.as_deref(), tag.as_deref());
        prop_assert_eq!(&read.about.usage, &usage);
        prop_assert_eq!(read.about.cost, cost.map(Money::from_pico));
        prop_assert_eq!(read.about.ttl, ttl.map(Duration::from_secs));
    }

    #[test]
    fn money_is_read_as_it_is_written(units in any::<i64>()) {
        let money = Money::from_pico(i128::from(units));
        prop_assert_eq!(Money::parse(&money.to_string()), Some(money));
    }
}

#[test]
fn another_key_in_the_same_place_is_no_answer() {
    let (folder, gate) = (Folder::new(), Arc::default());
    let one = store(&folder, &gate);
    let mut other = [1; 32];
    one.put(Key(other), &entry(b"{}", None, None, None, None));
    one.flush(PATIENCE).wait().unwrap();
    other[31] = 2;
    assert!(one.get(&Key(other), None).is_none());
    assert!(one.get(&Key([1; 32]), None).is_some());
}

#[test]
fn a_reader_may_be_stricter_about_age() {
    let (folder, gate) = (Folder::new(), Arc::default());
    let one = store(&folder, &gate);
    one.put(Key([1; 32]), &entry(b"{}", None, None, None, None));
    one.flush(PATIENCE).wait().unwrap();
    std::thread::sleep(Duration::from_millis(5));
    assert!(one.get(&Key([1; 32]), Some(Duration::from_millis(1))).is_none());
    assert_eq!(one.get(&Key([1; 32]), Some(PATIENCE)).unwrap().about.ttl, Some(PATIENCE));
}

#[test]
fn each_version_is_brought_up() {
    for version in 1..=VERSION {
        let (folder, gate) = (Folder::new(), Arc::default());
        std::fs::write(folder.path(), b"").unwrap();
        let mut connection = file::connect(&folder.path()).unwrap();
        schema::migrate_to(&mut connection, &[9; 32], version).unwrap();
        drop(connection);
        let one = store(&folder, &gate);
        one.put(Key([1; 32]), &entry(b"{}", None, None, None, None));
        one.flush(PATIENCE).wait().unwrap();
        // The file's own salt stays.
        assert_eq!(one.salt(), Some(&[9; 32]));
        assert!(one.get(&Key([1; 32]), None).is_some());
        assert!(CacheFile::open(&folder.path(), &gate).unwrap().report(0).is_ok());
    }
}

/// A store on which `count` answers are, every second one under the tag "even"; and a connection beside it.
fn filled(folder: &Folder, count: i64) -> (DiskStore, rusqlite::Connection) {
    let one = store(folder, &Arc::default());
    one.put(Key([1; 32]), &entry(b"{}", Some("odd"), None, None, None));
    one.flush(PATIENCE).wait().unwrap();
    let tables = rusqlite::Connection::open(folder.path()).unwrap();
    tables.busy_timeout(PATIENCE).unwrap();
    let names =
        "namespace, endpoint, stored, used, epoch, own_time, deterministic, head, size, compressed, body, digest";
    let copies = format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count} - 1)
         INSERT INTO entry (id, key, tag, {names})
         SELECT i, randomblob(32), iif(i % 2, 'even', 'odd'), {names} FROM n, (SELECT * FROM entry LIMIT 1)"
    );
    tables.execute(&copies, ()).unwrap();
    (one, tables)
}

fn count(tables: &rusqlite::Connection, from: &str) -> i64 {
    tables.query_row(&format!("SELECT count(*) FROM {from}"), (), |row| row.get(0)).unwrap()
}

fn wait_until(mut holds: impl FnMut() -> bool) {
    let ends = std::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(std::time::Instant::now() < ends);
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn many_answers_are_gone_at_once_and_removed_by_and_by() {
    let folder = Folder::new();
    let (one, tables) = filled(&folder, 20_000);
    assert_eq!(one.invalidate(Some("even")).wait(), Ok(10_000));
    assert_eq!(count(&tables, "live WHERE tag = 'even'"), 0);
    // What comes after it stays.
    one.put(Key([2; 32]), &entry(b"{}", Some("even"), None, None, None));
    one.flush(PATIENCE).wait().unwrap();
    assert!(one.get(&Key([2; 32]), None).is_some());
    assert_eq!(one.size().unwrap().entries, 10_001);
    wait_until(|| count(&tables, "entry") == 10_001);
    assert_eq!(count(&tables, "live WHERE tag = 'even'"), 1);
    one.invalidate(None).wait().unwrap();
    assert!(one.get(&Key([2; 32]), None).is_none());
    assert_eq!(one.size().unwrap().entries, 0);
    one.put(Key([3; 32]), &entry(b"{}", None, None, None, None));
    one.flush(PATIENCE).wait().unwrap();
    wait_until(|| count(&tables, "entry") == 1 && count(&tables, "invalidation WHERE NOT done") == 0);
    assert!(one.get(&Key([3; 32]), None).is_some());
}

#[test]
fn what_a_dead_process_did_not_remove_another_one_does() {
    let folder = Folder::new();
    let (one, tables) = filled(&folder, 5000);
    drop(one);
    let note = "INSERT INTO invalidation (tag, at, done) VALUES ('even', 1000, FALSE)";
    // It may have looked after the file itself meanwhile; then nobody would for a minute.
    tables.execute("DELETE FROM meta WHERE name = 'maintained'", ()).unwrap();
    tables.execute(note, ()).unwrap();
    let two = store(&folder, &Arc::default());
    two.flush(PATIENCE).wait().unwrap();
    assert_eq!(two.size().unwrap().entries, 2500);
    wait_until(|| count(&tables, "entry") == 2500);
}

#[test]
fn the_command_line_removes_many() {
    let folder = Folder::new();
    let (one, tables) = filled(&folder, 5000);
    let file = CacheFile::open(&folder.path(), &Arc::default()).unwrap();
    let choice =
        |tag: Option<&str>, model: Option<&str>| Choice { tag: tag.map(Into::into), model: model.map(Into::into) };
    tables.execute("UPDATE entry SET model = iif(id % 5, 'a', 'b')", ()).unwrap();
    let before = count(&tables, "entry WHERE model = 'b'");
    assert_eq!(file.invalidate(&choice(None, Some("b"))), Ok(before as u64));
    assert_eq!(count(&tables, "entry"), 5000 - before);
    let even = count(&tables, "entry WHERE tag = 'even'");
    assert_eq!(file.invalidate(&choice(Some("even"), None)), Ok(even as u64));
    assert_eq!(count(&tables, "entry WHERE tag = 'even'"), 0);
    file.invalidate(&Choice::default()).unwrap();
    assert_eq!(count(&tables, "entry"), 0);
    drop(one);
}

#[test]
fn a_shut_gate_keeps_everybody_out_and_closes_all() {
    let (folder, gate) = (Folder::new(), Arc::default());
    let one = store(&folder, &gate);
    one.put(Key([1; 32]), &entry(b"{}", None, None, None, None));
    one.flush(PATIENCE).wait().unwrap();
    assert!(gate.shut(PATIENCE));
    one.put(Key([2; 32]), &entry(b"{}", None, None, None, None));
    assert_eq!(one.flush(Duration::from_millis(200)).wait(), Err(Fault::Locked));
    gate.open();
    one.flush(PATIENCE).wait().unwrap();
    assert!(one.get(&Key([2; 32]), None).is_some());
    let barred = Arc::new(Gate::of_child(false));
    let child = store(&folder, &barred);
    assert!(child.get(&Key([1; 32]), None).is_none());
    assert_eq!(child.flush(PATIENCE).wait(), Err(Fault::Forked));
}

#[test]
fn network_file_systems() {
    for kind in [0x6969, 0x517b, 0xff53_4d42, 0xfe53_4d42, 0x0102_1997] {
        assert!(is_network_kind(kind));
    }
    // ext4, tmpfs, overlay, btrfs, xfs
    for kind in [0xef53, 0x0102_1994, 0x794c_7630, 0x9123_683e, 0x5846_5342] {
        assert!(!is_network_kind(kind));
    }
}
