//! Provides a passwd entry for a user without one.
//!
//! `ssh` exits for a user without an entry (`No user exists for uid`), such as the arbitrary uid of
//! a container. `/etc/passwd` may be on a read-only file system and must not be world-writable, so
//! `nss_wrapper(1)` (Debian's `libnss-wrapper`) gives the `ssh` process a passwd file of its own.

use std::fs;
use std::io;
use std::path::Path;

use crate::process::Environment;

/// Paths of the library in common distributions.
const LIBRARIES: &[&str] = &[
    "/usr/lib/x86_64-linux-gnu/libnss_wrapper.so",
    "/usr/lib/aarch64-linux-gnu/libnss_wrapper.so",
    "/usr/lib64/libnss_wrapper.so",
    "/usr/lib/libnss_wrapper.so",
];

/// Returns the environment variables that give this process's user a passwd entry.
///
/// Empty if the user has an entry, or if the library is missing: `ssh` then reports the problem.
///
/// # Errors
/// Returns an error if the passwd file cannot be written to `folder`.
pub(super) fn environment(folder: &Path) -> io::Result<Environment> {
    let uid = rustix::process::geteuid().as_raw();
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let Some(library) = LIBRARIES.iter().find(|library| Path::new(library).exists()) else {
        return Ok(Environment::new());
    };
    if has_entry(&passwd, uid) {
        return Ok(Environment::new());
    }
    let path = folder.join("passwd");
    let gid = rustix::process::getegid().as_raw();
    fs::write(&path, with_entry(&passwd, uid, gid, folder))?;
    Ok(Environment::from([
        ("LD_PRELOAD".into(), (*library).into()),
        ("NSS_WRAPPER_PASSWD".into(), path.into_os_string()),
        ("NSS_WRAPPER_GROUP".into(), "/etc/group".into()),
    ]))
}

fn has_entry(passwd: &str, uid: u32) -> bool {
    let uid = uid.to_string();
    passwd.lines().any(|line| line.split(':').nth(2) == Some(uid.as_str()))
}

fn with_entry(passwd: &str, uid: u32, gid: u32, home: &Path) -> String {
    let end = if passwd.is_empty() || passwd.ends_with('\n') { "" } else { "\n" };
    format!("{passwd}{end}supervisor:x:{uid}:{gid}:supervisor:{}:/bin/sh\n", home.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_passwd_entry_is_appended() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nagent:x:10001:0::/home/agent:/bin/bash";
        assert!(has_entry(passwd, 10001));
        // Matches neither a gid nor a prefix of a uid.
        assert!(!has_entry(passwd, 1000));
        let more = with_entry(passwd, 54321, 0, Path::new("/tmp/x"));
        assert!(has_entry(&more, 54321) && has_entry(&more, 10001) && has_entry(&more, 0), "{more}");
        assert!(more.ends_with("\nsupervisor:x:54321:0:supervisor:/tmp/x:/bin/sh\n"), "{more}");
    }
}
