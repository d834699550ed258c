//! A guest that dies, lies, floods or stalls makes one operation fail, within a bounded time.

#![expect(clippy::unwrap_used, reason = "a failed precondition fails the test")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use orchestrator_contract::RepositoryUrl;
use supervisor::git::{ControlRepository, GitError, Oid, StatCache, remove_tree, snapshot};
use supervisor::guest::{BUILD_ID, Guest, GuestError, GuestOptions};
use supervisor::process::{Environment, ProcessGroup, blocking_command};

const PATIENCE: Duration = Duration::from_millis(500);

/// Time in which every failure is noticed, on a slow machine.
const BOUND: Duration = Duration::from_secs(30);

/// The empty tree, which every git repository has.
const EMPTY_TREE: &str = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";

struct Fixture {
    folder: tempfile::TempDir,
    control: ControlRepository,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("tree")).unwrap();
        let url = RepositoryUrl::new("https://example.org/a/b").unwrap();
        let control =
            ControlRepository::open(&folder.path().join("control"), &url).unwrap().into_repository();
        Self { folder, control }
    }

    fn tree(&self) -> PathBuf {
        self.folder.path().join("tree")
    }

    fn start(&self, options: GuestOptions) -> Guest {
        Guest::start(Path::new(env!("CARGO_BIN_EXE_supervisor")), &self.tree(), options).unwrap()
    }

    fn capture(&self, guest: &Guest) -> Result<snapshot::Snapshot, GitError> {
        let empty = Oid::from_str(EMPTY_TREE).unwrap();
        snapshot::capture(&self.control, guest, empty, None, &StatCache::default())
    }
}

fn frame(id: u32, kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap();
    [&length.to_le_bytes(), &id.to_le_bytes(), [kind].as_slice(), payload].concat()
}

fn read_frame(socket: &mut UnixStream) -> Option<(u32, u8, Vec<u8>)> {
    let mut header = [0; 9];
    socket.read_exact(&mut header).ok()?;
    let length = u32::from_le_bytes(header[..4].try_into().unwrap());
    let mut payload = vec![0; usize::try_from(length).unwrap()];
    socket.read_exact(&mut payload).ok()?;
    Some((u32::from_le_bytes(header[4..8].try_into().unwrap()), header[8], payload))
}

const HELLO: u8 = 1;
const DONE: u8 = 32;
const DATA: u8 = 64;
const END: u8 = 65;

/// A guest that shakes hands and then does as `act` says, with its sockets and the first request.
fn fake(
    act: impl FnOnce(&mut UnixStream, &mut UnixStream, u32) + Send + 'static,
) -> (UnixStream, UnixStream) {
    let ((control, mut their_control), (bulk, mut their_bulk)) =
        (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
    std::thread::spawn(move || {
        their_control.write_all(&frame(0, HELLO, BUILD_ID.as_bytes())).unwrap();
        read_frame(&mut their_control).unwrap();
        their_control.write_all(&frame(0, DONE, &[])).unwrap();
        let Some((id, _, _)) = read_frame(&mut their_control) else { return };
        act(&mut their_control, &mut their_bulk, id);
    });
    (control, bulk)
}

/// Returns the error of a snapshot through a fake guest, and checks that it comes in time.
fn failure(act: impl FnOnce(&mut UnixStream, &mut UnixStream, u32) + Send + 'static) -> String {
    let fixture = Fixture::new();
    let (control, bulk) = fake(act);
    let options = GuestOptions { patience: PATIENCE, ..GuestOptions::default() };
    let guest = Guest::connect(control, bulk, None, &fixture.tree(), options).unwrap();
    let started = Instant::now();
    let error = fixture.capture(&guest).unwrap_err().to_string();
    assert!(started.elapsed() < BOUND, "{:?}", started.elapsed());
    // Every later request fails with the same error.
    assert_eq!(fixture.capture(&guest).unwrap_err().to_string(), error);
    error
}

/// Waits until the other side closes the socket.
fn until_closed(socket: &mut UnixStream) {
    let mut rest = Vec::new();
    drop(socket.read_to_end(&mut rest));
}

#[test]
fn guest_that_breaks_protocol_fails_with_one_error() {
    let wrong_id = failure(|control, bulk, id| {
        bulk.write_all(&frame(id + 7, DATA, b"x")).unwrap();
        until_closed(control);
    });
    assert!(wrong_id.contains("did not get"), "{wrong_id}");
    let garbage = failure(|control, bulk, _| {
        bulk.write_all(&[0xff; 64]).unwrap();
        until_closed(control);
    });
    assert!(garbage.contains("a frame of"), "{garbage}");
    let malformed = failure(|control, bulk, id| {
        bulk.write_all(&frame(id, DATA, &[0xee; 100])).unwrap();
        until_closed(control);
    });
    assert!(malformed.contains("malformed"), "{malformed}");
    let short = failure(|control, bulk, id| {
        bulk.write_all(&frame(id, END, &[])).unwrap();
        until_closed(control);
    });
    assert!(short.contains("malformed"), "{short}");
    let twice = failure(|control, bulk, id| {
        bulk.write_all(&[frame(id, END, &[]), frame(id, END, &[])].concat()).unwrap();
        until_closed(control);
    });
    assert!(
        twice.contains("malformed") || twice.contains("twice") || twice.contains("did not get"),
        "{twice}"
    );
    let wrong_socket = failure(|control, _, id| {
        control.write_all(&frame(id, DATA, b"x")).unwrap();
        until_closed(control);
    });
    assert!(wrong_socket.contains("does not belong"), "{wrong_socket}");
}

#[test]
fn guest_that_lists_bad_names_is_not_believed() {
    for name in ["..", ".", "", "a/b", "../../etc/passwd", "a\0b"] {
        let name = name.to_owned();
        let error = failure(move |control, bulk, id| {
            let mut entry = vec![4];
            entry.extend_from_slice(&u32::try_from(name.len()).unwrap().to_le_bytes());
            entry.extend_from_slice(name.as_bytes());
            entry.extend_from_slice(&[0; 60]);
            bulk.write_all(&frame(id, DATA, &entry)).unwrap();
            until_closed(control);
        });
        assert!(error.contains("malformed"), "{error}");
    }
}

#[test]
fn guest_that_floods_is_stopped_at_its_credit() {
    let error = failure(|control, bulk, id| {
        // An endless folder: more than the credit before anything is taken.
        let data = frame(id, DATA, &vec![0; 100_000]);
        while bulk.write_all(&data).is_ok() {}
        until_closed(control);
    });
    assert!(error.contains("malformed") || error.contains("more data"), "{error}");
}

#[test]
fn guest_that_stalls_or_dies_is_noticed_in_time() {
    let silent = failure(|control, _, _| until_closed(control));
    assert!(silent.contains("did not answer"), "{silent}");
    let dead = failure(|_, _, _| {});
    assert!(dead.contains("ended") || dead.contains("broke"), "{dead}");
    let drips = failure(|_, bulk, id| {
        // A name of 200 bytes that never ends.
        let start = [&[4][..], &200_u32.to_le_bytes()].concat();
        let mut alive = bulk.write_all(&frame(id, DATA, &start)).is_ok();
        let started = Instant::now();
        while alive && started.elapsed() < BOUND {
            alive = bulk.write_all(&frame(id, DATA, &[])).is_ok();
            std::thread::park_timeout(Duration::from_millis(5));
        }
    });
    assert!(drips.contains("did not answer"), "{drips}");
}

#[test]
fn guest_of_another_build_is_refused() {
    let ((control, mut their_control), (bulk, _their_bulk)) =
        (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
    their_control.write_all(&frame(0, HELLO, b"0000000000000000")).unwrap();
    let options = GuestOptions { patience: PATIENCE, ..GuestOptions::default() };
    let error = Guest::connect(control, bulk, None, Path::new("/nowhere"), options).unwrap_err();
    assert!(error.to_string().contains("another build"), "{error}");
}

#[test]
fn killed_guest_fails_and_leaves_no_process() {
    let fixture = Fixture::new();
    let guest = fixture.start(GuestOptions::default());
    let pid = guest.pid().unwrap();
    fixture.capture(&guest).unwrap();
    let environment: Environment = [("PATH".into(), "/usr/bin:/bin".into())].into_iter().collect();
    let mut kill = blocking_command("kill", &environment, ProcessGroup::Inherit);
    assert!(kill.args(["-9", &pid.to_string()]).status().unwrap().success());
    let error = fixture.capture(&guest).unwrap_err();
    assert!(error.to_string().contains("ended") || error.to_string().contains("broke"), "{error}");
    drop(guest);
    assert!(!Path::new("/proc").join(pid.to_string()).exists());
}

#[test]
fn guest_confines_itself_before_its_first_request() {
    let fixture = Fixture::new();
    let started = Instant::now();
    let guest = fixture.start(GuestOptions::default());
    println!("start of a guest: {:?}", started.elapsed());
    let status = fs::read_to_string(format!("/proc/{}/status", guest.pid().unwrap())).unwrap();
    let value = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.map(|value| value.trim().to_owned())
    };
    assert_eq!(value("Seccomp:").as_deref(), Some("2"), "{status}");
    assert_eq!(value("NoNewPrivs:").as_deref(), Some("1"), "{status}");
    // Every thread has the filter, and none has a capability.
    for thread in fs::read_dir(format!("/proc/{}/task", guest.pid().unwrap())).unwrap() {
        let status = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        assert!(status.contains("Seccomp:\t2") && status.contains("CapEff:\t0000000000000000"), "{status}");
    }
}

#[test]
fn device_and_mount_in_tree_lead_nowhere() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let fixture = Fixture::new();
    let (tree, outside) = (fixture.tree(), fixture.folder.path().join("outside"));
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "kept").unwrap();
    fs::create_dir(tree.join("mounted")).unwrap();
    fs::write(tree.join("work"), "x").unwrap();
    let device = rustix::fs::makedev(1, 5);
    if mknodat(CWD, tree.join("zero"), FileType::CharacterDevice, Mode::RUSR, device).is_err() {
        println!("skipped: only root can make a device");
        return;
    }
    let bound = rustix::mount::mount_bind(&outside, tree.join("mounted"));
    let guest = fixture.start(GuestOptions::default());
    let snapshot = fixture.capture(&guest).unwrap();
    let unsaved: Vec<_> =
        snapshot.unsaved.iter().map(|entry| String::from_utf8_lossy(&entry.path).into_owned()).collect();
    assert_eq!(unsaved, ["zero"]);
    if bound.is_ok() {
        rustix::mount::unmount(tree.join("mounted"), rustix::mount::UnmountFlags::DETACH).unwrap();
    }
    drop(guest);
    remove_tree(&tree).unwrap();
    assert_eq!(fs::read(outside.join("file")).unwrap(), b"kept");
}

#[test]
fn missing_root_is_clear_error() {
    let fixture = Fixture::new();
    let program = Path::new(env!("CARGO_BIN_EXE_supervisor"));
    for (name, make) in [("none", false), ("link", true)] {
        let root = fixture.folder.path().join(name);
        if make {
            std::os::unix::fs::symlink("/etc", &root).unwrap();
        }
        let error = Guest::start(program, &root, GuestOptions::default()).unwrap_err();
        assert!(matches!(error, GuestError::Root { .. }), "{error}");
    }
}

#[test]
fn many_empty_files_are_read_and_written() {
    let fixture = Fixture::new();
    for at in 0..3000 {
        fs::write(fixture.tree().join(format!("empty-{at}")), "").unwrap();
    }
    let guest = fixture.start(GuestOptions::default());
    let snapshot = fixture.capture(&guest).unwrap();
    assert_eq!((snapshot.changed.len(), snapshot.unsaved.len()), (3000, 0));
    // The same guest goes on.
    assert_eq!(fixture.capture(&guest).unwrap().tree, snapshot.tree);
}

#[test]
fn large_and_small_files_mix_with_and_without_openat2() {
    let fixture = Fixture::new();
    for at in 0..300 {
        let folder = fixture.tree().join(format!("a/b{}/c", at % 7));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("f{at}")), vec![b'x'; (at * 37) % 9000]).unwrap();
    }
    fs::write(fixture.tree().join("large"), vec![7; 30 << 20]).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", fixture.tree().join("link")).unwrap();
    std::os::unix::fs::symlink("/etc", fixture.tree().join("a/folder")).unwrap();
    let with = fixture.capture(&fixture.start(GuestOptions::default())).unwrap();
    let options = GuestOptions { without_openat2: true, ..GuestOptions::default() };
    let without = fixture.capture(&fixture.start(options)).unwrap();
    assert_eq!((with.tree, with.changed.len()), (without.tree, 303));
    let paths: Vec<_> = with.changed.iter().map(|change| String::from_utf8_lossy(&change.path)).collect();
    assert!(paths.contains(&"link".into()) && paths.contains(&"a/folder".into()), "{paths:?}");
    assert!(!paths.iter().any(|path| path.starts_with("a/folder/")), "a link was followed");
}

#[test]
fn removed_tree_is_gone_however_odd_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let outside = folder.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "kept").unwrap();
    let tree = folder.path().join("tree");
    let mut deep = tree.clone();
    for _ in 0..900 {
        deep.push("d");
    }
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("bottom"), "x").unwrap();
    for at in 0..5000 {
        fs::write(tree.join(format!("f{at}")), "").unwrap();
    }
    std::os::unix::fs::symlink(&outside, tree.join("link")).unwrap();
    fs::create_dir_all(tree.join("closed/inner")).unwrap();
    fs::write(tree.join("closed/inner/file"), "").unwrap();
    fs::set_permissions(tree.join("closed/inner"), fs::Permissions::from_mode(0o000)).unwrap();
    fs::set_permissions(tree.join("closed"), fs::Permissions::from_mode(0o000)).unwrap();
    remove_tree(&tree).unwrap();
    assert!(!tree.exists());
    remove_tree(&tree).unwrap();
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&outside, &link).unwrap();
    remove_tree(&link).unwrap();
    assert!(link.symlink_metadata().is_err());
    assert_eq!(fs::read(outside.join("file")).unwrap(), b"kept");
}

#[test]
fn removal_ends_while_names_change() {
    let folder = tempfile::tempdir().unwrap();
    let outside = folder.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "kept").unwrap();
    let tree = folder.path().join("tree");
    for at in 0..200 {
        fs::create_dir_all(tree.join(format!("a{at}/b/c"))).unwrap();
        fs::write(tree.join(format!("a{at}/b/c/file")), "").unwrap();
    }
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                for at in 0..200 {
                    let (one, two) = (tree.join(format!("a{at}/b")), tree.join(format!("a{at}/x")));
                    if fs::rename(&one, &two).is_ok() {
                        drop(std::os::unix::fs::symlink(&outside, &one));
                    }
                }
            }
        });
        // It may fail while another process writes, but it ends.
        drop(remove_tree(&tree));
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    remove_tree(&tree).unwrap();
    assert_eq!(fs::read(outside.join("file")).unwrap(), b"kept");
}
