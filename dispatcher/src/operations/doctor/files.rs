//! Checks of the files and directories named in the configuration.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustix::fs::{Access, access, statvfs};

use crate::config::Config;
use crate::task::check::{Check, CheckStatus};

/// Minimum free space: a clone with its build output needs about this much.
const MIN_FREE_BYTES: u64 = 2 << 30;

/// Checks that the state directory is writable and has free space.
pub(super) fn state_directory(directory: &Path) -> Check {
    let name = "state directory";
    let existing = directory.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"));
    if !existing.is_dir() || access(existing, Access::WRITE_OK | Access::EXEC_OK).is_err() {
        return Check::failed(
            name,
            CheckStatus::Error,
            format!("{} is not writable", existing.display()),
            "Make it writable, or set another with --state-dir or ORCHESTRATOR_STATE_DIR.",
        );
    }
    match statvfs(existing).map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize)) {
        Ok(free) if free < MIN_FREE_BYTES => Check::failed(
            name,
            CheckStatus::Warning,
            format!("{} has {} MiB left", directory.display(), free >> 20),
            "Free space with `dispatcher gc`, or set a directory on another disk with --state-dir.",
        ),
        Ok(_) | Err(_) => Check::ok(name, directory.display().to_string()),
    }
}

/// Checks the files and directories named in the configuration; returns failed checks only.
pub(super) fn configured(config: &Config) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut secret =
        |key: String, path: Option<&Path>| checks.extend(path.and_then(|path| secret_file(&key, path)));
    let secrets = config.secrets();
    secret("anthropic_api_key_file".to_owned(), secrets.anthropic_api_key_file.as_deref());
    secret("brave_api_key_file".to_owned(), secrets.brave_api_key_file.as_deref());
    for name in config.agent_names() {
        let Ok(agent) = config.agent(name) else { continue };
        secret(format!("agents.{name}.github_token_file"), agent.github_token_file.as_deref());
        secret(format!("agents.{name}.platform_token_file"), agent.platform_token_file.as_deref());
        secret(format!("agents.{name}.ssh_key_file"), agent.ssh_key_file.as_deref());
    }
    let mut directory = |key: String, path: Option<&Path>| {
        checks.extend(path.and_then(|path| readable_directory(&key, path)));
    };
    directory("secrets_dir".to_owned(), secrets.secrets_dir.as_deref());
    directory("mcp_config_dir".to_owned(), config.mcp_config_dir.as_deref());
    for name in config.service_names() {
        directory(format!("services.{name}.secrets_dir"), config.service(name).secrets_dir.as_deref());
    }
    if let Some(path) = secrets.known_hosts_file.as_deref() {
        checks.extend(readable_file("known_hosts_file", path));
    }
    checks
}

fn readable_file(key: &str, path: &Path) -> Option<Check> {
    let cause = match access(path, Access::READ_OK) {
        Ok(()) if path.is_file() => return None,
        Ok(()) => "not a file".to_owned(),
        Err(error) => error.to_string(),
    };
    Some(Check::failed(
        "file",
        CheckStatus::Error,
        format!("`{key}`: {} cannot be read: {cause}", path.display()),
        format!("Create the file, readable for you only, or fix `{key}`."),
    ))
}

fn secret_file(key: &str, path: &Path) -> Option<Check> {
    let unreadable = readable_file(key, path);
    if unreadable.is_some() {
        return unreadable;
    }
    let meta = std::fs::metadata(path).ok()?;
    if meta.len() == 0 {
        return Some(Check::failed(
            "file",
            CheckStatus::Error,
            format!("`{key}`: {} is empty", path.display()),
            format!("Write the secret to it, or fix `{key}`."),
        ));
    }
    // Read and write permissions of group and others.
    (meta.permissions().mode() & 0o066 != 0).then(|| {
        Check::failed(
            "file",
            CheckStatus::Warning,
            format!("`{key}`: other users can read or change {}", path.display()),
            format!("Run `chmod 600 {}`.", path.display()),
        )
    })
}

fn readable_directory(key: &str, path: &Path) -> Option<Check> {
    if path.is_dir() && access(path, Access::READ_OK | Access::EXEC_OK).is_ok() {
        return None;
    }
    Some(Check::failed(
        "directory",
        CheckStatus::Error,
        format!("`{key}`: {} is not a readable directory", path.display()),
        format!("Create the directory, or fix `{key}`."),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_secret_file_problem_suggests_fix() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let result = |path: &Path| secret_file("key", path).map(|check| (check.status, check.fix.unwrap()));
        assert_eq!(result(&path).unwrap().0, CheckStatus::Error, "missing");
        assert_eq!(result(folder.path()).unwrap().0, CheckStatus::Error, "a directory");
        std::fs::write(&path, "").unwrap();
        assert_eq!(result(&path).unwrap().0, CheckStatus::Error, "empty");
        std::fs::write(&path, "x").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(
            result(&path),
            Some((CheckStatus::Warning, format!("Run `chmod 600 {}`.", path.display())))
        );
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(result(&path), None);
    }
}
