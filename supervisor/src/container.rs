//! Both ends of a guest that is process 1 of another container.
//!
//! Untrusted programs of a run on Docker and Kubernetes run in containers of their own. The guest there
//! connects to a socket of the supervisor, starts programs, signals them and reports their exits. Each
//! stream of a program is a connection of its own, so that a signal never waits for data. The supervisor
//! believes nothing that comes from there: it is bounded and parsed.
//!
//! | module | purpose |
//! |---|---|
//! | `message` | frames of the connections |
//! | [`host`] | the supervisor's side: waits for the guest, starts programs |
//! | `accept` | takes connections to the socket and finds out what they are |
//! | `connection` | requests to a connected guest, and what it reports |
//! | `program` | a program that runs in the container |
//! | `error` | why something failed |
//! | `server` | the guest's side: connection, requests |
//! | `children` | the guest's side: processes |
//! | `streams` | the guest's side: streams of programs |
//! | [`volumes`] | prepares the volumes of a run's containers |
//! | `facts` | the guest's side: what the supervisor has to know about the container |

mod accept;
mod children;
mod connection;
mod error;
mod facts;
pub mod host;
mod message;
mod program;
mod server;
mod streams;
pub mod volumes;

pub use error::ContainerError;
pub use host::{ContainerHost, ContainerProgram};
pub use message::{EndedProgram, Facts};
pub use program::{ProgramHandle, RunningProgram};
pub use server::guest_main;
