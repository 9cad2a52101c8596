//! Logging as a whole process sees it: it can be set up once, and panics end up in the log.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use telemetry::{Error, Format, LogConfig, RequestContext, in_request, init, init_with_writer};

#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no test panics here").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn logging_is_set_up_once_and_a_panic_is_one_record_with_its_request() {
    let memory = Memory::default();
    let config = LogConfig { format: Format::Json, ..LogConfig::default() };
    let bad = LogConfig { level: "loud".into(), ..config.clone() };
    assert!(matches!(init_with_writer(&bad, memory.clone()), Err(Error::Level { .. })));
    let _logs = init_with_writer(&config, memory.clone()).unwrap();
    assert!(matches!(init(&config), Err(Error::AlreadySet)));

    let panicking = std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let context = Arc::new(RequestContext::from_headers(Some("req-1"), None));
        runtime.block_on(in_request(context, async { panic!("on\npurpose") }))
    });
    assert!(panicking.join().is_err());

    let text = String::from_utf8(memory.0.lock().unwrap().clone()).unwrap();
    let record: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(record["level"], "error");
    assert_eq!(record["request_id"], "req-1");
    assert_eq!(record["message"], "panicked: on\npurpose");
    assert!(record["location"].as_str().unwrap().contains("process.rs"));
}
