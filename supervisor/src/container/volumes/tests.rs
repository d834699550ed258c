use std::os::unix::fs::symlink;

use super::*;

struct Fixture {
    folder: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let fixture = Self { folder };
        fixture.write("opt/bin/supervisor", "program");
        fixture
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn prepare(&self) -> Result<Vec<String>, VolumesError> {
        prepare(&self.path("volume"), &self.path("tools"), &self.path("opt/bin/supervisor"))
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn mode(&self, path: &str) -> u32 {
        self.path(path).symlink_metadata().unwrap().permissions().mode() & 0o7777
    }
}

const FORMER_FILES: [(&str, &str); 12] = [
    (".orchestrator/state.json", "private/state.json"),
    (".orchestrator/runs/a/outcome.json", "private/runs/a/outcome.json"),
    (".orchestrator/attempts/key", "private/attempts/key"),
    (".orchestrator/platform.git/HEAD", "private/platform.git/HEAD"),
    (".orchestrator/target.git/HEAD", "shared/target.git/HEAD"),
    (".orchestrator/caches/cargo/a", "shared/caches/cargo/a"),
    (".orchestrator/aside/run/file", "tree/aside/former-aside/run/file"),
    ("platform-repo/file", "shared/platform-repo/file"),
    ("target-repo/work", "tree/aside/former-target-repo/work"),
    ("docs-repo/work", "tree/aside/former-docs-repo/work"),
    ("agent/home/file", "tree/aside/former-agent/home/file"),
    ("verify/x/file", "tree/aside/former-verify/x/file"),
];

#[test]
fn directories_have_their_modes_and_are_kept() {
    let fixture = Fixture::new();
    assert_eq!(fixture.prepare().unwrap(), Vec::<String>::new());
    for (name, mode) in DIRECTORIES {
        assert_eq!(fixture.mode(&format!("volume/{name}")), mode, "{name}");
    }
    fixture.write("volume/tree/target-repo/work", "work");
    fs::set_permissions(fixture.path("volume/verify"), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(fixture.prepare().unwrap(), Vec::<String>::new());
    assert_eq!(fixture.read("volume/tree/target-repo/work"), "work");
    assert_eq!(fixture.mode("volume/verify"), 0o700);
}

#[test]
fn other_things_than_directories_are_refused() {
    for name in ["tree", "verify", "private", "shared", ".orchestrator"] {
        let fixture = Fixture::new();
        fs::create_dir(fixture.path("volume")).unwrap();
        symlink("/etc", fixture.path("volume").join(name)).unwrap();
        let error = fixture.prepare().unwrap_err();
        assert!(matches!(&error, VolumesError::NotDirectory(path) if path.ends_with(name)), "{error}");
    }
}

#[test]
fn former_volume_is_adopted_without_loss() {
    let fixture = Fixture::new();
    for (from, _) in FORMER_FILES {
        fixture.write(&format!("volume/{from}"), from);
    }
    let notes = fixture.prepare().unwrap().join("\n");
    for (from, to) in FORMER_FILES {
        assert_eq!(fixture.read(&format!("volume/{to}")), from);
    }
    let mut left: Vec<_> =
        fs::read_dir(fixture.path("volume")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["private", "shared", "tree", "verify"]);
    assert_eq!(fs::read_dir(fixture.path("volume/verify")).unwrap().count(), 0);
    assert_eq!(fixture.mode("volume/tree/aside"), 0o775);
    assert!(notes.contains("tree/aside/former-target-repo"), "{notes}");
    assert_eq!(fixture.prepare().unwrap(), Vec::<String>::new());
}

#[test]
fn interrupted_adoption_is_completed() {
    // Interrupted after each number of moves.
    for moved in 0..=FORMER_FILES.len() {
        let fixture = Fixture::new();
        for (number, (from, to)) in FORMER_FILES.iter().enumerate() {
            let place = if number < moved { to } else { from };
            fixture.write(&format!("volume/{place}"), from);
        }
        fs::create_dir_all(fixture.path("volume/.orchestrator")).unwrap();
        fixture.prepare().unwrap();
        for (from, to) in FORMER_FILES {
            assert_eq!(fixture.read(&format!("volume/{to}")), from, "after {moved}");
        }
        assert!(!fixture.path("volume/.orchestrator").exists());
    }
}

#[test]
fn second_adoption_replaces_nothing() {
    let fixture = Fixture::new();
    for text in ["first", "second"] {
        for name in ["target-repo/work", ".orchestrator/state.json", ".orchestrator/target.git/HEAD"] {
            fixture.write(&format!("volume/{name}"), text);
        }
        fixture.write(&format!("volume/.orchestrator/runs/{text}/log"), text);
        fixture.prepare().unwrap();
    }
    for (path, second) in [
        ("tree/aside/former-target-repo", "tree/aside/former-target-repo.former-2/work"),
        ("private/state.json", "private/state.json.former-2"),
        ("shared/target.git", "shared/target.git.former-2/HEAD"),
    ] {
        assert!(fixture.path("volume").join(path).exists(), "{path}");
        assert_eq!(fixture.read(&format!("volume/{second}")), "second");
    }
    for text in ["first", "second"] {
        assert_eq!(fixture.read(&format!("volume/private/runs/{text}/log")), text);
    }
}

#[test]
fn tools_are_copied_once_with_modes_and_links() {
    let fixture = Fixture::new();
    fixture.write("opt/certs/ca-certificates.crt", "certificates");
    fs::set_permissions(fixture.path("opt/bin/supervisor"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("../certs/ca-certificates.crt", fixture.path("opt/bin/link")).unwrap();
    fixture.prepare().unwrap();
    assert_eq!(fixture.read("tools/bin/supervisor"), "program");
    assert_eq!(fixture.mode("tools/bin/supervisor"), 0o755);
    assert_eq!(fixture.read("tools/certs/ca-certificates.crt"), "certificates");
    assert_eq!(
        fs::read_link(fixture.path("tools/bin/link")).unwrap(),
        Path::new("../certs/ca-certificates.crt")
    );
    // The same build is not copied again, another one is.
    fixture.write("opt/bin/supervisor", "changed");
    fixture.prepare().unwrap();
    assert_eq!(fixture.read("tools/bin/supervisor"), "program");
    fixture.write("tools/.build", "another");
    fixture.prepare().unwrap();
    assert_eq!(fixture.read("tools/bin/supervisor"), "changed");
}

#[test]
fn links_out_of_tools_are_refused() {
    for link in ["/etc/passwd", "../../outside", "../../../opt2/bin"] {
        let fixture = Fixture::new();
        symlink(link, fixture.path("opt/bin/link")).unwrap();
        let error = fixture.prepare().unwrap_err();
        assert!(matches!(error, VolumesError::LinkOut(_)), "{link}: {error}");
        assert!(!fixture.path("tools/.build").exists());
    }
}

#[test]
fn executable_outside_of_tools_is_copied_alone() {
    let fixture = Fixture::new();
    fixture.write("target/debug/supervisor-1", "program");
    fixture.write("target/debug/other", "other");
    prepare(&fixture.path("volume"), &fixture.path("tools"), &fixture.path("target/debug/supervisor-1"))
        .unwrap();
    assert_eq!(fixture.read("tools/bin/supervisor"), "program");
    assert!(!fixture.path("tools/other").exists());
    let error = prepare(&fixture.path("volume"), &fixture.path("tools2"), Path::new("/usr/bin/supervisor"));
    assert!(matches!(error, Err(VolumesError::NotTools(_))), "{error:?}");
}
