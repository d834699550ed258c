//! What the supervisor has to know about the container, from the guest's side.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use super::message::{ENVIRONMENT_MAX, Facts};
use crate::process::Environment;

/// Certificates of most images.
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Variables that name a file of certificates: OpenSSL, git, Node.
const CERTIFICATE_VARIABLES: [&str; 3] = ["SSL_CERT_FILE", "GIT_SSL_CAINFO", "NODE_EXTRA_CA_CERTS"];

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Returns the facts of this container.
pub(super) fn facts(inherited: &Environment, program: PathBuf) -> Facts {
    let environment = compose(inherited, &program, Path::new(CERTIFICATES));
    Facts { environment, uid: rustix::process::geteuid().as_raw(), pid: std::process::id(), program }
}

/// Adds the tools beside `program` to the image's environment.
fn compose(inherited: &Environment, program: &Path, certificates: &Path) -> Environment {
    let mut environment = Environment::new();
    let mut left = ENVIRONMENT_MAX / 2;
    for (name, value) in inherited {
        // What does not fit is left out: the supervisor would refuse the whole.
        let valid = !name.is_empty() && name.to_str().is_some() && value.to_str().is_some();
        if let Some(rest) = left.checked_sub(name.len() + value.len()).filter(|_| valid) {
            left = rest;
            environment.insert(name.clone(), value.clone());
        }
    }
    let Some(bin) = program.parent() else { return environment };
    let mut path = match environment.get(OsStr::new("PATH")) {
        Some(path) if !path.is_empty() => path.clone(),
        _ => DEFAULT_PATH.into(),
    };
    if !std::env::split_paths(&path).any(|directory| directory == bin) {
        path.push(":");
        path.push(bin);
    }
    environment.insert("PATH".into(), path);
    let bundled = bin.parent().map(|tools| tools.join("certs/ca-certificates.crt"));
    if let Some(bundled) = bundled.filter(|bundled| !certificates.exists() && bundled.is_file()) {
        for name in CERTIFICATE_VARIABLES {
            environment.entry(name.into()).or_insert_with(|| bundled.clone().into());
        }
    }
    environment
}

/// Finds an executable program in a search path; an absolute path is only checked.
pub(super) fn find_program(environment: &Environment, name: &OsStr) -> Option<PathBuf> {
    let executable = |path: &PathBuf| path.is_file() && access(path, Access::EXEC_OK).is_ok();
    if Path::new(name).is_absolute() {
        return Some(PathBuf::from(name)).filter(executable);
    }
    if name.is_empty() || Path::new(name).components().count() != 1 {
        return None;
    }
    let path: OsString = environment.get(OsStr::new("PATH")).cloned().unwrap_or_default();
    std::env::split_paths(&path)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(name))
        .find(executable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_set_only_where_image_has_none() {
        let tools = tempfile::tempdir().unwrap();
        let bundled = tools.path().join("certs/ca-certificates.crt");
        std::fs::create_dir(tools.path().join("certs")).unwrap();
        std::fs::write(&bundled, "").unwrap();
        let program = tools.path().join("bin/supervisor");
        let image: Environment =
            [("PATH".into(), "/bin".into()), ("SSL_CERT_FILE".into(), "/own".into())].into_iter().collect();
        let composed = compose(&image, &program, &tools.path().join("missing"));
        let bin = tools.path().join("bin");
        assert_eq!(composed[OsStr::new("PATH")], *format!("/bin:{}", bin.display()));
        assert_eq!(composed[OsStr::new("SSL_CERT_FILE")], *"/own");
        assert_eq!(composed[OsStr::new("GIT_SSL_CAINFO")], *bundled.as_os_str());
        assert_eq!(composed[OsStr::new("NODE_EXTRA_CA_CERTS")], *bundled.as_os_str());
        let composed = compose(&image, &program, &bundled);
        assert_eq!(composed.len(), 2, "{composed:?}");
    }

    #[test]
    fn environment_that_is_too_large_is_shortened() {
        let large = (0..64).map(|number| (format!("V{number}").into(), "x".repeat(8192).into())).collect();
        assert!(facts(&large, "/opt/orchestrator/bin/supervisor".into()).are_valid());
    }

    #[test]
    fn programs_are_found_by_name_or_absolute_path() {
        let environment: Environment = [("PATH".into(), "/nonexistent:/bin".into())].into_iter().collect();
        let find = |name: &str| find_program(&environment, OsStr::new(name));
        assert_eq!(find("sh"), Some("/bin/sh".into()));
        assert_eq!(find("/bin/sh"), Some("/bin/sh".into()));
        assert_eq!(
            [find("no-such-program"), find("../bin/sh"), find(""), find("/bin"), find("/etc/passwd")],
            [const { None }; 5]
        );
    }
}
