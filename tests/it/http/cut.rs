//! A way to a host that is cut off after so many bytes.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Byte ranges, first and last.
type Asked = Arc<Mutex<Vec<(usize, Option<usize>)>>>;

/// Passes connections on until all together have brought so many bytes; then all break, and no new one comes through.
pub(super) struct Cut {
    pub(super) addr: SocketAddr,
    connections: Arc<AtomicUsize>,
    asked: Asked,
    task: JoinHandle<()>,
}

impl Cut {
    pub(super) async fn after(bytes: usize, host: SocketAddr) -> Cut {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let connections = Arc::<AtomicUsize>::default();
        let (count, left) = (connections.clone(), Arc::new(AtomicUsize::new(bytes)));
        let asked = Asked::default();
        let ranges = asked.clone();
        let task = tokio::spawn(async move {
            let cut = CancellationToken::new();
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                let (cut, left, ranges) = (cut.clone(), left.clone(), ranges.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        () = cut.cancelled() => {}
                        _ = pass(stream, host, &left, &cut, ranges) => {}
                    }
                });
            }
        });
        Cut { addr, connections, asked, task }
    }

    /// Byte ranges that were asked for.
    pub(super) fn asked(&self) -> Vec<(usize, Option<usize>)> {
        self.asked.lock().unwrap().clone()
    }

    /// Connections that were made so far.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Ends with either side, or cuts everything once there is nothing left.
async fn pass(
    client: TcpStream,
    host: SocketAddr,
    left: &AtomicUsize,
    cut: &CancellationToken,
    ranges: Asked,
) -> std::io::Result<()> {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_host, mut to_host) = TcpStream::connect(host).await?.into_split();
    // Clients send nothing but the heads of requests, each in one piece.
    let up = tokio::spawn(async move {
        let mut head = vec![0; 16 * 1024];
        while let Ok(n @ 1..) = from_client.read(&mut head).await {
            let text = String::from_utf8_lossy(&head[..n]).to_lowercase();
            let range = text.lines().find_map(|l| l.strip_prefix("range: bytes=")?.split_once('-'));
            if let Some((first, last)) = range {
                ranges.lock().unwrap().push((first.parse().unwrap(), last.trim().parse().ok()));
            }
            if to_host.write_all(&head[..n]).await.is_err() {
                return;
            }
        }
    });
    let mut buffer = vec![0; 16 * 1024];
    let down = async {
        loop {
            let n = from_host.read(&mut buffer).await?;
            if n == 0 {
                return Ok(());
            }
            let less = |l: usize| l.checked_sub(n);
            if left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_err() {
                cut.cancel();
                return Ok(());
            }
            to_client.write_all(&buffer[..n]).await?;
        }
    };
    let end = down.await;
    up.abort();
    end
}
