//! The store on disk: what is written is what is read, whatever it is; versions; many stores on one file.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use farthing::exchange::Endpoint;
use farthing::key::Key;
use farthing::labels::{Kind, Label, Labels};
use farthing::ledger::{Money, Usage};
use farthing::store::disk::admin::{CacheFile, Choice};
use farthing::store::disk::fault::Fault;
use farthing::store::disk::gate::Gate;
use farthing::store::disk::network::is_network_kind;
use farthing::store::disk::schema::{self, VERSION};
use farthing::store::disk::{DiskStore, Settings, file, labels};
use farthing::store::memory::MemoryStore;
use farthing::store::{About, Entry};
use http::HeaderMap;
use proptest::prelude::*;
use serde_json::json;

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

fn label(at: i64) -> Label {
    Label {
        at,
        model: "gpt-4o-mini".to_owned(),
        rung: "small".to_owned(),
        kind: Kind::Escalation,
        prompt: [3; 32],
        features: json!({"words": 12.5}),
        text: None,
        score: Some(0.25),
        scores: [("structural".to_owned(), 0.5), ("hook:3".to_owned(), 0.0)].into(),
        good: None,
        cost: Some(Money::from_pico(1_234_567)),
        dear_cost: None,
        overhead: Some(Money::ZERO),
    }
}

fn times(labels: &[Label]) -> Vec<i64> {
    labels.iter().map(|label| label.at).collect()
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
    fn a_label_is_read_as_it_was_kept(
        at in any::<i64>(),
        model in ".*",
        text in prop::option::of(".*"),
        name in ".*",
        score in prop::option::of(0.0..=1.0_f64),
        cost in prop::option::of(any::<i64>()),
        prompt in any::<[u8; 32]>(),
    ) {
        let (folder, gate) = (Folder::new(), Arc::default());
        let kept = Label {
            model, text, score, prompt,
            kind: Kind::Shadow,
            good: score,
            features: json!({(name.clone()): name.clone()}),
            scores: score.map(|score| (name, score)).into_iter().collect(),
            cost: cost.map(|cost| Money::from_pico(cost.into())),
            ..label(at)
        };
        let one = Arc::new(store(&folder, &gate));
        Labels::new(Some(Arc::clone(&one))).keep(kept.clone());
        one.flush(PATIENCE).wait().unwrap();
        let other = Labels::new(Some(Arc::new(store(&folder, &gate))));
        prop_assert_eq!(other.all().unwrap(), [kept]);
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
        assert!(one.keep_label(label(1)).is_none());
        one.flush(PATIENCE).wait().unwrap();
        assert_eq!(one.labels().unwrap(), [label(1)]);
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

#[test]
fn the_oldest_labels_make_room() {
    let folder = Folder::new();
    let one = store(&folder, &Arc::default());
    (0..1000).for_each(|at| assert!(one.keep_label(label(at)).is_none()));
    one.flush(PATIENCE).wait().unwrap();
    let tables = rusqlite::Connection::open(folder.path()).unwrap();
    labels::trim(&tables, 300, i64::MAX).unwrap();
    assert_eq!(times(&labels::all(&tables).unwrap()), (700..1000).collect::<Vec<_>>());
    let weight = i64::try_from(label(0).weight()).unwrap();
    assert_eq!(file::number(&tables, "label bytes").unwrap(), Some(300 * weight));
    labels::trim(&tables, 300, 100 * weight).unwrap();
    assert_eq!(times(&labels::all(&tables).unwrap()), (956..1000).collect::<Vec<_>>());
    labels::trim(&tables, 300, 0).unwrap();
    assert_eq!(file::number(&tables, "label bytes").unwrap(), Some(0));
    // Their numbers go on, or the newest would be the first to go.
    one.keep_label(label(5));
    one.flush(PATIENCE).wait().unwrap();
    labels::trim(&tables, 300, i64::MAX).unwrap();
    assert_eq!(times(&one.labels().unwrap()), [5]);
}

#[test]
fn a_cleared_cache_has_its_labels_still() {
    let (folder, gate) = (Folder::new(), Arc::default());
    let one = store(&folder, &gate);
    one.put(Key([1; 32]), &entry(b"{}", Some("tag"), None, None, None));
    one.keep_label(label(1));
    one.flush(PATIENCE).wait().unwrap();
    one.invalidate(Some("tag")).wait().unwrap();
    one.invalidate(None).wait().unwrap();
    let admin = CacheFile::open(&folder.path(), &gate).unwrap();
    admin.invalidate(&Choice::default()).unwrap();
    assert_eq!(one.labels().unwrap(), [label(1)]);
    let stats = admin.stats().unwrap();
    assert_eq!((&stats["entries"], &stats["labels"]), (&json!(0), &json!(1)));
}

#[test]
fn a_row_that_is_no_label_is_left_out() {
    let folder = Folder::new();
    let one = store(&folder, &Arc::default());
    (1..=3).for_each(|at| drop(one.keep_label(label(at))));
    one.flush(PATIENCE).wait().unwrap();
    let tables = rusqlite::Connection::open(folder.path()).unwrap();
    tables.execute("UPDATE labels SET features = '{' WHERE at = 1", ()).unwrap();
    tables.execute("UPDATE labels SET kind = 'other', cost = 'x' WHERE at = 2", ()).unwrap();
    assert_eq!(times(&one.labels().unwrap()), [3]);
}

#[test]
fn labels_outlive_a_broken_file() {
    let (folder, gate) = (Folder::new(), Arc::default());
    let one = store(&folder, &gate);
    (0..50).for_each(|at| drop(one.keep_label(label(at))));
    one.flush(PATIENCE).wait().unwrap();
    let tables = rusqlite::Connection::open(folder.path()).unwrap();
    let moved = folder.0.join("other.db");
    tables.execute("VACUUM INTO ?1", [moved.to_str().unwrap()]).unwrap();
    tables.execute("DELETE FROM labels", ()).unwrap();
    labels::salvage(&tables, &rusqlite::Connection::open(moved).unwrap()).unwrap();
    assert_eq!(times(&labels::all(&tables).unwrap()), (0..50).collect::<Vec<_>>());
}

#[test]
fn without_a_file_memory_keeps_the_newest_labels() {
    let labels = Labels::default();
    (0..10_005).for_each(|at| labels.keep(label(at)));
    let all = labels.all().unwrap();
    assert_eq!((all.len(), all[0].at), (10_000, 5));

    // Long texts: their beginning, cut between two letters, and not more than memory can bear.
    let text = "\u{1f600}".repeat(100_000);
    (0..3000).for_each(|at| labels.keep(Label { text: Some(text.clone()), ..label(at) }));
    let all = labels.all().unwrap();
    assert!(all.iter().map(Label::weight).sum::<usize>() <= 64 << 20);
    assert!(all.iter().all(|label| text.starts_with(label.text.as_deref().unwrap())));
    assert_eq!((all.last().unwrap().at, all[0].text.as_ref().unwrap().len()), (2999, 64 << 10));
}

#[test]
fn a_label_in_json_has_its_money_as_text() {
    let text = serde_json::to_value(label(7)).unwrap();
    assert_eq!(
        (&text["cost"], &text["kind"], &text["dear_cost"]),
        (&json!("0.000001234567"), &json!("escalation"), &json!(null))
    );
    assert_eq!(text["prompt"], "03".repeat(32));
}
