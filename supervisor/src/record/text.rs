//! Renders an event as text: `12:03:11 agent  edits src/lib.rs`. Pure.

use orchestrator_contract::{Event, Level, terminal};

/// Renders the line. Returns `None` for events that the readable log omits.
#[must_use]
pub fn render(event: &Event) -> Option<String> {
    let line = event.log_line()?;
    let prefix = match line.level {
        Level::Debug | Level::Info => "",
        Level::Warn => "warning: ",
        Level::Error => "error: ",
    };
    let time = event.time.strftime("%H:%M:%S");
    let (source, text) = (terminal::neutralize(line.source), terminal::neutralize(line.text));
    Some(format!("{time} {source:<14} {prefix}{text}"))
}

#[cfg(test)]
mod tests {
    use orchestrator_contract::EventBody;

    use super::*;

    #[test]
    fn log_event_renders_time_source_message() {
        let event = Event {
            version: 1,
            time: "2026-11-22T12:03:11Z".parse().unwrap(),
            seq: 4,
            run: None,
            message: "edits src/lib.rs".to_owned(),
            body: EventBody::Log { level: Level::Info, source: "agent".to_owned() },
        };
        assert_eq!(render(&event).unwrap(), "12:03:11 agent          edits src/lib.rs");
    }
}
