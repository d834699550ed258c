//! Trusted caches that are filled from another container, and given to its programs.

#![expect(clippy::unwrap_used, reason = "a failed precondition fails the test")]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};
use supervisor::guest::{Guest, GuestOptions};
use supervisor::process::{Environment, ProcessGroup, blocking_command};
use supervisor::workspace::import_caches::{ImportError, Imported, import_caches};

const SUPERVISOR: &str = env!("CARGO_BIN_EXE_supervisor");

const SHARED: [&str; 5] = [
    "cargo/registry/cache/index-1/a-1.0.0.crate",
    "cargo/registry/src/index-1/a-1.0.0/src/lib.rs",
    "npm/_cacache/index-v5/00/11/22",
    "pip/http-v2/a",
    "go/example.org/a@v1.0.0/a.go",
];

struct Fixture {
    folder: tempfile::TempDir,
    guest: Guest,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let guest = Guest::start(Path::new(SUPERVISOR), &tree, GuestOptions::default()).unwrap();
        Self { folder, guest }
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.written(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn written(&self, file: &str) -> PathBuf {
        self.folder.path().join("tree/home/cache").join(file)
    }

    fn trusted(&self, file: &str) -> PathBuf {
        self.folder.path().join("shared/caches").join(file)
    }

    fn import(&self) -> Result<Imported, ImportError> {
        import_caches(&self.guest, Path::new("home/cache"), &self.folder.path().join("shared/caches"))
    }

    /// Checks that the trusted caches are those of the first import, and that nothing is beside them.
    fn assert_unchanged(&self) {
        assert_eq!(fs::read_to_string(self.trusted("pip/first")).unwrap(), "first");
        assert_eq!(fs::read_dir(self.folder.path().join("shared")).unwrap().count(), 1);
    }
}

#[test]
fn import_takes_only_what_sandboxes_share() {
    let fixture = Fixture::new();
    let left_out =
        ["cargo/config.toml", "cargo/bin/cargo-x", "npm/_logs/log", "go/cache/vcs/x", "other/file"];
    for file in SHARED.iter().chain(&left_out) {
        fixture.write(file, "content");
    }
    symlink("/etc/passwd", fixture.written("pip/link")).unwrap();
    symlink("/etc", fixture.written("go/example.org/a@v1.0.0/etc")).unwrap();
    let script = fixture.written(SHARED[1]);
    fs::set_permissions(script, fs::Permissions::from_mode(0o4777)).unwrap();
    let imported = fixture.import().unwrap();
    assert_eq!(imported, Imported { files: 5, bytes: 5 * 7 });
    for file in SHARED {
        assert_eq!(fs::read_to_string(fixture.trusted(file)).unwrap(), "content", "{file}");
    }
    for file in left_out.iter().chain(&["pip/link", "go/example.org/a@v1.0.0/etc"]) {
        assert!(fixture.trusted(file).symlink_metadata().is_err(), "{file}");
    }
    let mode = |file: &str| fs::metadata(fixture.trusted(file)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(SHARED[0]), mode(SHARED[1]), mode("")), (0o644, 0o755, 0o755));
}

#[test]
fn next_import_replaces_caches_as_whole() {
    let fixture = Fixture::new();
    fixture.write("pip/first", "first");
    fixture.import().unwrap();
    fixture.assert_unchanged();
    fs::remove_file(fixture.written("pip/first")).unwrap();
    fixture.write("pip/second", "second");
    fixture.import().unwrap();
    assert!(!fixture.trusted("pip/first").exists());
    assert_eq!(fs::read_to_string(fixture.trusted("pip/second")).unwrap(), "second");
    assert_eq!(fs::read_dir(fixture.folder.path().join("shared")).unwrap().count(), 1);
}

#[test]
fn failed_import_keeps_caches() {
    let fixture = Fixture::new();
    fixture.write("pip/first", "first");
    fixture.import().unwrap();
    fixture.write("pip/huge", "");
    let huge = fs::File::options().write(true).open(fixture.written("pip/huge")).unwrap();
    huge.set_len(9 << 30).unwrap();
    let error = fixture.import().unwrap_err();
    assert!(matches!(error, ImportError::TooLarge(_)), "{error}");
    fixture.assert_unchanged();
    let guest = fixture.guest.pid().and_then(|pid| Pid::from_raw(i32::try_from(pid).unwrap()));
    kill_process(guest.unwrap(), Signal::KILL).unwrap();
    let error = fixture.import().unwrap_err();
    assert!(matches!(error, ImportError::Guest(_)), "{error}");
    fixture.assert_unchanged();
}

#[test]
fn seed_subcommand_gives_links_to_trusted_caches() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    fs::create_dir_all(from.join("pip/http-v2")).unwrap();
    fs::write(from.join("pip/http-v2/a"), "content").unwrap();
    let seed = || {
        let mut command = blocking_command(SUPERVISOR, &Environment::new(), ProcessGroup::New);
        command.arg("seed-caches").arg("--from").arg(&from).arg("--to").arg(&to);
        command.status().unwrap()
    };
    assert!(!seed().success(), "there is no directory for the caches");
    fs::create_dir(&to).unwrap();
    assert!(seed().success());
    assert_eq!(fs::read_link(to.join("pip/http-v2/a")).unwrap(), from.join("pip/http-v2/a"));
    assert!(to.join("cargo").is_dir());
}

#[test]
fn volumes_that_cannot_be_prepared_fail_with_reason() {
    let folder = tempfile::tempdir().unwrap();
    let (volumes, tools) = (folder.path().join("volumes"), folder.path().join("tools"));
    let prepare = || {
        let mut command = blocking_command(SUPERVISOR, &Environment::new(), ProcessGroup::New);
        command.arg("prepare-volumes").arg("--volumes").arg(&volumes).arg("--tools").arg(&tools);
        command.output().unwrap()
    };
    assert!(prepare().status.success());
    assert!(volumes.join("tree").is_dir());
    assert_eq!(fs::read(tools.join("bin/supervisor")).unwrap(), fs::read(SUPERVISOR).unwrap());
    fs::remove_dir(volumes.join("shared")).unwrap();
    fs::write(volumes.join("shared"), "").unwrap();
    let output = prepare();
    let code = orchestrator_contract::Reason::WorkspaceUnwritable.exit_code();
    assert_eq!(output.status.code(), Some(code.into()));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("shared` is not a directory"), "{text}");
}
