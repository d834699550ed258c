//! Paths that a run must not change unless the configuration allows it.

/// Files that CI systems run with their own secrets, as gitignore patterns.
///
/// An agent that pushes a change of one, even on a branch without a pull request, can run programs with
/// those secrets. Files that only decide about reviews or updates, such as `CODEOWNERS` and
/// `renovate.json`, run nothing and are not listed. `protected_paths_allow` removes entries.
pub const DEFAULT_PATHS: [&str; 18] = [
    ".github/workflows/**",
    ".github/actions/**",
    "/.gitlab-ci.yml",
    ".gitlab/ci/**",
    ".circleci/**",
    "/azure-pipelines.yml",
    "/.azure-pipelines/**",
    "/Jenkinsfile",
    ".buildkite/**",
    "/bitbucket-pipelines.yml",
    "/.woodpecker*",
    "/.drone.yml",
    ".forgejo/**",
    ".gitea/workflows/**",
    "/.travis.yml",
    "/.cirrus.yml",
    "/appveyor.yml",
    "/.appveyor.yml",
];
