//! Finds the secret values in a kubeconfig. The rest, such as `namespace: default`, is not redacted.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Fields with credentials, from client-go's `clientcmd/api/v1` and its authentication providers.
const FIELDS: [&str; 7] =
    ["token", "password", "client-key-data", "id-token", "refresh-token", "access-token", "client-secret"];

/// Returns the secret values in the text of a kubeconfig, in YAML or JSON.
///
/// A base64-encoded key is returned both encoded and decoded.
pub(super) fn secret_values(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for field in text.split(['\n', ',', '{', '}']) {
        let Some((name, value)) = field.split_once(':') else { continue };
        let bare =
            |text: &str| text.trim().trim_start_matches("- ").trim_matches(['"', '\'', ' ']).to_owned();
        let (name, value) = (bare(name), bare(value));
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
        assert_eq!(secret_values(r#"{"user":{"tokenFile":"/run/token"}}"#), [] as [String; 0]);
    }
}
