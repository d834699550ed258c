//! Stand-ins that behave: what the end-to-end suites and the demo run against.
//!
//! | module | what it is |
//! |---|---|
//! | [`bench`] | the scripted agent and the world of benchmarks and fault tests |
//! | [`binaries`] | our own programs, built once |
//! | [`tools`] | the CLI and the MCP servers, fetched by lock file |
//! | [`docked`] | a world whose runs are containers of the docker backend |
//! | [`engine`] | a container engine, and runs of the agent image in it |
//! | [`kubernetes`] | a control plane, real where there is one, and a node that runs pods |
//! | [`mcp_client`] | the least MCP client, for crowds and benchmarks |
//! | [`mcp_tools`] | MCP clients that others wrote, fetched by lock files of their own |
//! | [`messages_api`] | the model: scripts for the real CLI |
//! | [`git_server`] | the git host: real repositories over HTTP |
//! | [`stage`] | the dispatcher with a supervisor that only tells, where the real one would cost too much |
//! | [`sshd`] | the same repositories over SSH |
//! | [`lead`] | the real CLI as an IDE runs it, with our MCP server |
//! | [`world`] | all of it together, with our programs in it |
//! | [`projects`] | the repositories of a world |
//! | [`github`] | the host's REST API, which looks at the git server's branches |

pub mod bench;
pub mod binaries;
pub mod dispatcher_env;
pub mod docker_env;
pub mod documents;
pub mod engine;
pub mod git_server;
pub mod github;
pub mod ide_session;
pub mod invariants;
pub mod kubernetes;
pub mod mcp_client;
pub mod mcp_tools;
pub mod messages_api;
pub mod projects;
pub mod sshd;
pub mod test_env;
pub mod tools;
