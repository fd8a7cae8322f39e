//! The API server without kubectl's start-up, for what is measured in milliseconds: one `kubectl proxy`, and requests to it.
//!
//! Invariant: the proxy ends with this value.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    process::{Child, Command},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, ensure};

use crate::cluster::Cluster;

pub(crate) struct Api {
    proxy: Child,
    address: String,
}

impl Api {
    pub(crate) fn of(cluster: &Cluster) -> anyhow::Result<Self> {
        let mut proxy = cluster.proxy()?;
        let said = proxy.stdout.take().context("kubectl proxy says nothing")?;
        let mut api = Self { proxy, address: String::new() };
        let mut line = String::new();
        BufReader::new(said).read_line(&mut line)?;
        // `Starting to serve on 127.0.0.1:41923`
        let address = line.trim().rsplit(' ').next().unwrap_or_default();
        ensure!(address.starts_with("127.0.0.1:"), "kubectl proxy says `{line}`");
        address.clone_into(&mut api.address);
        Ok(api)
    }

    /// A merge patch; when it was sent, and when the API server had taken it, in milliseconds since 1970.
    pub(crate) fn patch(&self, path: &str, body: &str) -> anyhow::Result<(f64, f64)> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let sent = now()?;
        write!(
            stream,
            "PATCH {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-type: application/merge-patch+json\r\n\
             content-length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        )?;
        let mut first = [0; 12];
        stream.read_exact(&mut first)?;
        let taken = now()?;
        let mut rest = String::new();
        stream.read_to_string(&mut rest)?;
        ensure!(first.ends_with(b" 200"), "{path} answers {} {rest}", String::from_utf8_lossy(&first));
        Ok((sent, taken))
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        // It runs below `timeout`, which hands SIGTERM on.
        let _ended = Command::new("kill").arg(self.proxy.id().to_string()).status();
        let _reaped = self.proxy.wait();
    }
}

fn now() -> anyhow::Result<f64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64() * 1e3)
}
