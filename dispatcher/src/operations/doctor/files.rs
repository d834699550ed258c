//! The files and folders that the configuration names.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustix::fs::{Access, access, statvfs};

use super::{Check, CheckStatus};
use crate::config::Config;

/// Less than this is not enough for a clone with its build output.
const ROOM: u64 = 2 << 30;

/// Where runs and workspaces are kept: can it be written, is there room.
pub(super) fn state_folder(folder: &Path) -> Check {
    let name = "state folder";
    let there = folder.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    if !there.is_dir() || access(there, Access::WRITE_OK | Access::EXEC_OK).is_err() {
        return Check::failed(
            name,
            CheckStatus::Error,
            format!("{} cannot be written", there.display()),
            "Make it writable, or name another with --state-dir or ORCHESTRATOR_STATE_DIR.",
        );
    }
    match statvfs(there).map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize)) {
        Ok(free) if free < ROOM => Check::failed(
            name,
            CheckStatus::Warning,
            format!("{} has {} MiB of room left", folder.display(), free >> 20),
            "Make room (dispatcher gc), or name a folder on another disk with --state-dir.",
        ),
        Ok(_) | Err(_) => Check::ok(name, folder.display().to_string()),
    }
}

/// Everything that the configuration names and a run would miss; nothing is said of what is well.
pub(super) fn named(config: &Config) -> Vec<Check> {
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
    let mut folder =
        |key: String, path: Option<&Path>| checks.extend(path.and_then(|path| readable_folder(&key, path)));
    folder("secrets_dir".to_owned(), secrets.secrets_dir.as_deref());
    folder("mcp_config_dir".to_owned(), config.mcp_config_dir.as_deref());
    for name in config.service_names() {
        folder(format!("services.{name}.secrets_dir"), config.service(name).secrets_dir.as_deref());
    }
    if let Some(path) = secrets.known_hosts_file.as_deref() {
        checks.extend(readable_file("known_hosts_file", path));
    }
    checks
}

fn readable_file(key: &str, path: &Path) -> Option<Check> {
    let why = match access(path, Access::READ_OK) {
        Ok(()) if path.is_file() => return None,
        Ok(()) => "it is no file".to_owned(),
        Err(error) => error.to_string(),
    };
    Some(Check::failed(
        "file",
        CheckStatus::Error,
        format!("`{key}`: {} cannot be read: {why}", path.display()),
        format!("Make the file, readable for you alone, or mend `{key}`."),
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
            format!("Write the secret into it, or mend `{key}`."),
        ));
    }
    // Group and others, to read or to write.
    (meta.permissions().mode() & 0o066 != 0).then(|| {
        Check::failed(
            "file",
            CheckStatus::Warning,
            format!("`{key}`: others can read or change {}", path.display()),
            format!("chmod 600 {}", path.display()),
        )
    })
}

fn readable_folder(key: &str, path: &Path) -> Option<Check> {
    if path.is_dir() && access(path, Access::READ_OK | Access::EXEC_OK).is_ok() {
        return None;
    }
    Some(Check::failed(
        "folder",
        CheckStatus::Error,
        format!("`{key}`: {} is no folder that can be read", path.display()),
        format!("Make the folder, or mend `{key}`."),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_secret_file_problem_suggests_fix() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let said = |path: &Path| secret_file("key", path).map(|check| (check.status, check.fix.unwrap()));
        assert_eq!(said(&path).unwrap().0, CheckStatus::Error, "missing");
        assert_eq!(said(folder.path()).unwrap().0, CheckStatus::Error, "a folder");
        std::fs::write(&path, "").unwrap();
        assert_eq!(said(&path).unwrap().0, CheckStatus::Error, "empty");
        std::fs::write(&path, "x").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(said(&path), Some((CheckStatus::Warning, format!("chmod 600 {}", path.display()))));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(said(&path), None);
    }
}
