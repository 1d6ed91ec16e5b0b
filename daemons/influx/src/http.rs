//! Lines to an InfluxDB: version 1 by `/write`, version 2 by `/api/v2/write`. Each batch is answered: taken, refused for good, or
//! to be sent again.

use fulmar_host::{error, info, warning};
use std::fmt;
use std::thread::sleep;
use std::time::Duration;

use ureq::Agent;
use ureq::tls::TlsConfig;

use crate::config::Http;
use crate::daemon::RETRY;
use crate::queue::Queue;

/// How long one batch may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Bytes of an answer that are shown.
const ANSWER_BYTES_MAX: u64 = 512;

/// Why a batch was not taken.
enum Refused {
    /// It will never be: the number and the words of the server.
    ForGood(u16, String),
    /// Perhaps later.
    ForNow(String),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ForGood(status, text) => write!(f, "status {status}: {text}"),
            Self::ForNow(text) => f.write_str(text),
        }
    }
}

/// Sends for ever.
pub(crate) fn send(http: &Http, queue: &Queue) {
    let tls = TlsConfig::builder().root_certs(http.roots.clone()).build();
    let config = Agent::config_builder().timeout_global(Some(PATIENCE)).http_status_as_error(false).tls_config(tls);
    let agent = Agent::new_with_config(config.build());
    // What is in the query may be secret.
    let shown = http.url.split('?').next().unwrap_or_default();
    let mut said = String::new();
    loop {
        let batch = queue.take();
        let refused = post(&agent, http, &batch.text).err();
        queue.note_connected(refused.is_none());
        let Some(refused) = refused else {
            if !said.is_empty() {
                info!("http: {shown}: takes lines again");
                said.clear();
            }
            queue.note_sent(batch.count);
            continue;
        };
        let text = match &refused {
            Refused::ForGood(..) => format!("http: {shown}: lines dropped: {refused}"),
            Refused::ForNow(_) => format!("http: {shown}: {refused}, tried again every {} s", RETRY.as_secs()),
        };
        if text != said {
            match refused {
                Refused::ForGood(..) => error!("{text}"),
                Refused::ForNow(_) => warning!("{text}"),
            }
            said = text;
        }
        match refused {
            Refused::ForGood(..) => queue.drop_lines(batch.count),
            Refused::ForNow(_) => {
                queue.put_back(batch);
                sleep(RETRY);
            }
        }
    }
}

fn post(agent: &Agent, http: &Http, lines: &str) -> Result<(), Refused> {
    let mut request = agent.post(&http.url).header("Content-Type", "text/plain; charset=utf-8");
    if let Some(authorization) = &http.authorization {
        request = request.header("Authorization", authorization);
    }
    let mut answer = request.send(lines).map_err(|error| Refused::ForNow(error.to_string()))?;
    let status = answer.status().as_u16();
    let mut words = || {
        let text = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string();
        text.unwrap_or_default().trim().to_owned()
    };
    match status {
        200..300 => Ok(()),
        // Who is not let in now, or asks too often, may be let in later.
        401 | 403 | 404 | 408 | 429 | 500.. => Err(Refused::ForNow(format!("status {status}: {}", words()))),
        _ => Err(Refused::ForGood(status, words())),
    }
}
