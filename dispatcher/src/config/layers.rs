//! Finds, checks and merges the configuration files.

use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::file::{FileSettings, NAME, parse_error};
use crate::error::Error;
use crate::files;
use crate::task::address;

/// Where a configuration file was found, which decides how far it is trusted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Origin {
    /// In the project folder, which may be a third-party repository.
    Project,
    /// In the user's configuration folder, or named by the user.
    User,
}

/// The merged settings and their source files.
#[derive(Clone, Debug, Default)]
pub(super) struct Layers {
    pub(super) settings: FileSettings,
    /// In read order; later files override earlier ones.
    pub(super) files: Vec<PathBuf>,
}

/// Keys that name programs, or files and addresses that secrets are read from or sent to. `*`
/// matches any name.
///
/// They are rejected in project files: cloning a repository must not let it run programs or read the
/// user's secrets.
const TRUSTED_ONLY: &[&[&str]] = &[
    &["backend"],
    &["docker"],
    &["state_dir"],
    &["supervisor"],
    &["claude"],
    &["mcp_config_dir"],
    &["sandbox"],
    &["github_api_url"],
    &["secrets"],
    &["serve"],
    &["kubernetes"],
    &["defaults", "protected_paths_allow"],
    &["services", "*", "protected_paths_allow"],
    &["services", "*", "image"],
    &["services", "*", "secrets_dir"],
    &["agents", "*", "github_token_file"],
    &["agents", "*", "platform_token_file"],
    &["agents", "*", "ssh_key_file"],
    &["agents", "*", "git_hosts"],
];

/// Reads only the file that the user named.
///
/// `api` is the URL of the GitHub API in the environment, which wins over that of a file.
pub(super) fn read_named(path: &Path, home: Option<&Path>, api: Option<&str>) -> Result<Layers, Error> {
    let text = read(path)?
        .ok_or_else(|| Error::configuration(format!("cannot read {}: no such file", path.display())))?;
    FileSettings::parse(&text, path)?;
    let table = toml::from_str(&text).map_err(|error| parse_error(&text, path, &error))?;
    let mut settings = settings(table, &[path.to_owned()], api)?;
    settings.resolve_paths(path, home);
    Ok(Layers { settings, files: vec![path.to_owned()] })
}

/// Reads the project file nearest upwards from `folder`, then the user's file, which overrides it.
pub(super) fn read_found(
    folder: &Path,
    user: Option<&Path>,
    home: Option<&Path>,
    api: Option<&str>,
) -> Result<Layers, Error> {
    let user = user.map(|folder| folder.join(NAME)).filter(|file| file.is_file());
    let nearest = folder.ancestors().map(|folder| folder.join(NAME)).find(|file| file.is_file());
    // The project folder may be the user's configuration folder itself.
    let nearest = nearest.filter(|file| Some(file) != user.as_ref());
    let mut merged = Table::new();
    let mut files = Vec::new();
    for (file, origin) in [(nearest, Origin::Project), (user.clone(), Origin::User)] {
        let Some(file) = file else { continue };
        merge(&mut merged, layer(&file, origin)?);
        files.push(file);
    }
    let mut settings = settings(merged, &files, api)?;
    if let Some(user) = user {
        // Only the user's file may name paths.
        settings.resolve_paths(&user, home);
    }
    Ok(Layers { settings, files })
}

/// Returns the settings of the merged files.
fn settings(mut merged: Table, files: &[PathBuf], api: Option<&str>) -> Result<FileSettings, Error> {
    let api = api.or_else(|| merged.get("github_api_url")?.as_str());
    let github = address::server_of(api);
    complete_addresses(&mut merged, &github);
    Value::Table(merged).try_into().map_err(|error: toml::de::Error| {
        let names: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
        Error::configuration(format!("cannot merge {}: {}", names.join(" and "), error.message()))
    })
}

/// Completes the addresses of repositories: their server may be in another file.
fn complete_addresses(merged: &mut Table, github: &str) {
    let complete = |table: Option<&mut Value>, key: &str| {
        if let Some(Value::String(text)) = table.and_then(|table| table.get_mut(key))
            && let Some(address) = address::complete(text, github)
        {
            *text = address;
        }
    };
    complete(merged.get_mut("defaults"), "platform_repository_url");
    let services = merged.get_mut("services").and_then(Value::as_table_mut);
    for (_, service) in services.into_iter().flatten() {
        complete(Some(service), "repository_url");
    }
}

fn read(path: &Path) -> Result<Option<String>, Error> {
    files::read(path).map_err(|problem| Error::configuration(problem.message()))
}

fn layer(path: &Path, origin: Origin) -> Result<Table, Error> {
    let text = read(path)?.unwrap_or_default();
    // Parse each file alone first: its errors have a line and a column.
    FileSettings::parse(&text, path)?;
    match origin {
        Origin::User => {}
        Origin::Project => reject_untrusted_keys(&text, path)?,
    }
    toml::from_str(&text).map_err(|error| parse_error(&text, path, &error))
}

fn reject_untrusted_keys(text: &str, path: &Path) -> Result<(), Error> {
    let table = DeTable::parse(text).map_err(|error| parse_error(text, path, &error))?;
    for keys in TRUSTED_ONLY {
        if let Some((name, at)) = find(table.get_ref(), keys) {
            let (line, column) = super::file::position(text, at);
            return Err(Error::configuration(format!(
                "{}:{line}:{column}: `{name}` is not allowed in a project file: it decides \
                 which programs run or where your secrets go",
                path.display()
            ))
            .with_hint(format!(
                "Move it to orchestrator.toml in your configuration folder (~/.config/orchestrator), or, if you \
                 trust this file, pass --config {}.",
                path.display()
            )));
        }
    }
    Ok(())
}

/// Returns the first key that matches, with its byte offset.
fn find(table: &DeTable<'_>, keys: &[&str]) -> Option<(String, usize)> {
    let (first, rest) = keys.split_first()?;
    table.iter().filter(|(key, _)| *first == "*" || key.get_ref() == first).find_map(|(key, value)| {
        if rest.is_empty() {
            return Some((key.get_ref().to_string(), key.span().start));
        }
        let DeValue::Table(table) = value.get_ref() else { return None };
        let (name, at) = find(table, rest)?;
        Some((format!("{}.{name}", key.get_ref()), at))
    })
}

/// Merges `over` into `under`, table by table; `over` wins.
fn merge(under: &mut Table, over: Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(Value::Table(under)), Value::Table(over)) => merge(under, over),
            (_, value) => drop(under.insert(key, value)),
        }
    }
}

#[cfg(test)]
mod tests;
