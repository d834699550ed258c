//! Finds the secret values in a kubeconfig. The rest, such as `namespace: default`, is not redacted.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Fields with credentials, from client-go's `clientcmd/api/v1` and its authentication providers.
const FIELDS: [&str; 7] =
    ["token", "password", "client-key-data", "id-token", "refresh-token", "access-token", "client-secret"];

/// Fields with paths of files, from client-go's `clientcmd/api/v1`.
const FILE_FIELDS: [&str; 4] = ["tokenFile", "certificate-authority", "client-certificate", "client-key"];

/// Returns the files that a kubeconfig refers to; a relative path is relative to its directory.
pub(super) fn referenced_files(text: &str, directory: &Path) -> Vec<PathBuf> {
    let fields =
        fields(text).filter(|(name, value)| FILE_FIELDS.contains(&name.as_str()) && !value.is_empty());
    fields.map(|(_, value)| directory.join(value)).collect()
}

/// Returns the fields of a text in YAML or JSON, as (name, value).
fn fields(text: &str) -> impl Iterator<Item = (String, String)> {
    let bare = |text: &str| text.trim().trim_start_matches("- ").trim_matches(['"', '\'', ' ']).to_owned();
    text.split(['\n', ',', '{', '}']).filter_map(move |field| {
        let (name, value) = field.split_once(':')?;
        Some((bare(name), bare(value)))
    })
}

/// Returns the secret values in the text of a kubeconfig, in YAML or JSON.
///
/// A base64-encoded key is returned both encoded and decoded.
pub(super) fn secret_values(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (name, value) in fields(text) {
        if !FIELDS.contains(&name.as_str()) || value.is_empty() {
            continue;
        }
        if name == "client-key-data"
            && let Some(key) = STANDARD.decode(&value).ok().and_then(|key| String::from_utf8(key).ok())
        {
            found.push(key);
        }
        found.push(value);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubeconfig_secrets_are_user_credentials_only() {
        let yaml = "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: LS0tLS1CRUdJTg==\n    \
            server: https://example.com:6443\n  name: kubernetes\ncontexts:\n- context:\n    namespace: default\n\
            users:\n- name: me\n  user:\n    client-key-data: a2V5IG9mIG1pbmU=\n    token: \"abc.def-ghi\"\n- name: other\n  \
            user: {username: u, password: 'hunter22'}\n";
        assert_eq!(secret_values(yaml), ["key of mine", "a2V5IG9mIG1pbmU=", "abc.def-ghi", "hunter22"]);
        let json = r#"{"users":[{"name":"x","user":{"token":"abc"}}],"clusters":[{"cluster":{"server":"https://h"}}]}"#;
        assert_eq!(secret_values(json), ["abc"]);
        let files = r#"{"user":{"tokenFile":"/run/token"},"cluster":{"certificate-authority":"ca.crt"}}"#;
        assert_eq!(secret_values(files), [] as [String; 0]);
        let referenced = referenced_files(files, Path::new("/secrets"));
        assert_eq!(referenced, [Path::new("/run/token"), Path::new("/secrets/ca.crt")]);
    }
}
