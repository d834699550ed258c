use super::*;
use std::os::unix::fs::{PermissionsExt as _, symlink};

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn token_is_random_and_private_and_created_once() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("config/orchestrator/serve-token");
    create_if_missing(&path).unwrap();
    let token = read(&path).unwrap();
    assert_eq!(token.trim().len(), 2 * TOKEN_BYTES);
    assert!(token.trim().bytes().all(|byte| byte.is_ascii_hexdigit()), "{token}");
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
    create_if_missing(&path).unwrap();
    assert_eq!(read(&path).unwrap(), token);
    let other = home.path().join("other");
    create_if_missing(&other).unwrap();
    assert_ne!(read(&other).unwrap(), token);
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no temporary file stays");
}

#[test]
fn concurrent_servers_create_one_token() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("serve-token");
    let tokens: Vec<String> = std::thread::scope(|scope| {
        let create = || {
            create_if_missing(&path).unwrap();
            read(&path).unwrap()
        };
        let all: Vec<_> = (0..16).map(|_| scope.spawn(create)).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert!(tokens.iter().all(|token| *token == tokens[0] && token.len() > 2 * TOKEN_BYTES), "{tokens:?}");
}

#[test]
fn token_file_open_to_others_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("serve-token");
    create_if_missing(&path).unwrap();
    for mode in [0o604, 0o602, 0o640, 0o620, 0o610, 0o601, 0o644, 0o666, 0o660] {
        set_mode(&path, mode);
        let error = create_if_missing(&path).unwrap_err();
        assert!(error.exit_code() == 78 && error.message().contains("mode must be 600"), "{mode:o}: {error}");
    }
    for mode in [0o600, 0o400] {
        set_mode(&path, mode);
        create_if_missing(&path).unwrap();
    }
}

#[test]
fn planted_token_file_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let known = home.path().join("known");
    create_if_missing(&known).unwrap();
    let check = |name: &str, plant: &dyn Fn(&Path), expected: &str| {
        let path = home.path().join(name);
        plant(&path);
        let error = create_if_missing(&path).unwrap_err();
        assert!(error.message().contains(expected), "{name}: {error}");
    };
    check("link", &|path| symlink(&known, path).unwrap(), "symbolic link");
    check("dangling", &|path| symlink(home.path().join("elsewhere"), path).unwrap(), "symbolic link");
    assert!(!home.path().join("elsewhere").exists(), "a dangling link must not choose where the token goes");
    check("folder", &|path| fs::create_dir(path).unwrap(), "not a regular file");
    check("socket", &|path| drop(std::os::unix::net::UnixListener::bind(path).unwrap()), "");
    let large = |path: &Path| {
        fs::write(path, vec![b'x'; 100_000]).unwrap();
        set_mode(path, 0o600);
    };
    check("large", &large, "too large");
    let device = create_if_missing(Path::new("/dev/null")).unwrap_err();
    assert!(device.message().contains("not a regular file"), "{device}");
}

#[test]
fn token_file_of_other_user_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("serve-token");
    create_if_missing(&path).unwrap();
    // Only root can give a file away.
    if std::os::unix::fs::chown(&path, Some(12345), None).is_ok() {
        let error = create_if_missing(&path).unwrap_err();
        assert!(error.message().contains("another user"), "{error}");
    }
}

#[test]
fn token_file_is_in_user_configuration_folder() {
    let of = |variables: &[(&str, &str)]| path(&variables.iter().copied().collect());
    assert_eq!(of(&[("HOME", "/home/me")]).unwrap(), Path::new("/home/me/.config/orchestrator/serve-token"));
    let both = of(&[("HOME", "/home/me"), ("XDG_CONFIG_HOME", "/cfg")]).unwrap();
    assert_eq!(both, Path::new("/cfg/orchestrator/serve-token"));
    assert_eq!(of(&[]), None);
}
