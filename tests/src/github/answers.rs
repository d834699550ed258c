//! Responses to authorized calls.

use serde_json::{Value, json};

use super::{Api, Call, CallParams, State, refusal};
use crate::git_server::Access;

impl Api {
    pub(super) fn perform(
        &self,
        state: &mut State,
        call: Call,
        access: Access,
        params: &CallParams<'_>,
    ) -> (u16, Value) {
        let CallParams { repository, number, query, body } = *params;
        let archived = state.archived.iter().any(|name| name == repository);
        match call {
            Call::Repository => (200, self.repository(repository, access, archived)),
            Call::List => (200, self.list(&state.pulls, repository, query)),
            Call::Create => self.create(&mut state.pulls, repository, body),
            Call::Read | Call::Change => {
                let known = state.pulls.iter_mut().find(|pull| is(pull, repository, number));
                let Some(pull) = known else { return refusal(404, "Not Found") };
                for field in ["title", "body", "state"] {
                    if call == Call::Change && !body[field].is_null() {
                        pull[field] = body[field].clone();
                    }
                }
                (200, self.live(pull))
            }
            Call::Comments | Call::Comment
                if !state.pulls.iter().any(|pull| is(pull, repository, number)) =>
            {
                refusal(404, "Not Found")
            }
            Call::Comments => {
                let own = state.comments.iter();
                (
                    200,
                    own.filter(|comment| comment["issue_url"] == issue(repository, number))
                        .cloned()
                        .collect(),
                )
            }
            Call::Comment => {
                let id = state.comments.len() + 1;
                let comment = json!({
                    "id": id, "node_id": format!("IC_{id}"), "body": body["body"], "user": author(),
                    "url": format!("https://api.github.com/repos/{repository}/issues/comments/{id}"),
                    "html_url": format!("https://github.example/{repository}/pull/{number}#issuecomment-{id}"),
                    "issue_url": issue(repository, number),
                    "created_at": WHEN, "updated_at": WHEN, "author_association": "MEMBER",
                });
                state.comments.push(comment.clone());
                (201, comment)
            }
        }
    }

    fn repository(&self, repository: &str, access: Access, archived: bool) -> Value {
        let (owner, name) = repository.split_once('/').expect("an owner");
        json!({
            "id": 1, "name": name, "full_name": repository, "private": true, "archived": archived,
            "owner_name": owner, "url": format!("https://api.github.com/repos/{repository}"),
            "default_branch": self.git.default_branch(repository),
            "permissions": {"admin": false, "push": access == Access::Write, "pull": true},
        })
    }

    fn list(&self, pulls: &[Value], repository: &str, query: &str) -> Value {
        let query = query.replace("%3A", ":").replace("%2F", "/");
        let matches = |pull: &Value| {
            query.split('&').filter_map(|pair| pair.split_once('=')).all(|(key, value)| match key {
                "head" => pull["head"]["label"] == value,
                "base" => pull["base"]["ref"] == value,
                "state" => value == "all" || pull["state"] == value,
                _ => true,
            })
        };
        let own = pulls.iter().filter(|pull| pull["repository"] == repository && matches(pull));
        own.map(|pull| self.live(pull)).collect()
    }

    fn create(&self, pulls: &mut Vec<Value>, repository: &str, body: &Value) -> (u16, Value) {
        let text = |field: &str| body[field].as_str().unwrap_or_default().to_owned();
        let owner = repository.split('/').next().unwrap_or_default();
        let (base, head) = (text("base"), text("head"));
        let head = head.trim_start_matches(&format!("{owner}:")).to_owned();
        let tips = self.git.tips(repository);
        let label = format!("{owner}:{head}");
        let exists = |pull: &Value| {
            pull["repository"] == repository
                && pull["state"] == "open"
                && pull["head"]["label"] == label.as_str()
        };
        if !tips.contains_key(&head) || !tips.contains_key(&base) {
            return refusal(422, "Validation Failed");
        }
        if pulls.iter().any(exists) {
            return refusal(422, &format!("A pull request already exists for {label}."));
        }
        if self.git.ahead(repository, &base, &head) == 0 {
            return refusal(422, &format!("No commits between {base} and {head}"));
        }
        let number = pulls.len() + 1;
        let pull = json!({
            "id": number, "number": number, "state": "open", "locked": false, "repository": repository,
            "url": format!("https://api.github.com/repos/{repository}/pulls/{number}"),
            "html_url": format!("https://github.example/{repository}/pull/{number}"),
            "title": body["title"], "body": body["body"], "draft": body["draft"] == true,
            "user": author(), "created_at": WHEN, "updated_at": WHEN, "mergeable": true, "mergeable_state": "clean",
            "head": {"label": label, "ref": head, "sha": tips[&head]},
            "base": {"label": format!("{owner}:{base}"), "ref": base, "sha": tips[&base]},
        });
        pulls.push(pull.clone());
        (201, pull)
    }

    /// Returns the pull request with the current head of its branch.
    fn live(&self, pull: &Value) -> Value {
        let mut pull = pull.clone();
        let tips = self.git.tips(pull["repository"].as_str().unwrap_or_default());
        if let Some(tip) = pull["head"]["ref"].as_str().and_then(|head| tips.get(head)) {
            pull["head"]["sha"] = json!(tip);
        }
        pull
    }
}

fn is(pull: &Value, repository: &str, number: &str) -> bool {
    pull["repository"] == repository && pull["number"].as_u64() == number.parse().ok()
}

/// The time of every object. The pages are on a host that does not exist: those on github.com are of strangers.
const WHEN: &str = "2026-01-02T03:04:05Z";

fn issue(repository: &str, number: &str) -> String {
    format!("https://api.github.com/repos/{repository}/issues/{number}")
}

fn author() -> Value {
    let mut author = json!({
        "login": "robot", "id": 7, "node_id": "U_7", "gravatar_id": "", "type": "User", "site_admin": false,
    });
    for field in [
        "avatar_url",
        "url",
        "html_url",
        "followers_url",
        "following_url",
        "gists_url",
        "starred_url",
        "subscriptions_url",
        "organizations_url",
        "repos_url",
        "events_url",
        "received_events_url",
    ] {
        author[field] = json!("https://api.github.com/users/robot");
    }
    author
}
