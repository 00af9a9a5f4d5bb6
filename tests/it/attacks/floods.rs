//! Garbage, floods and clients that never finish, at the ports of a tracker and of a host, while others fetch.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use iceshare_tests::{Network, media, same};

use super::stranger::{port_of_host, runtime};

/// Bytes that mean nothing, always the same.
fn noise(n: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..n).map(|_| next()).collect()
}

/// What somebody might open a connection with.
fn openings(seed: u64) -> Vec<Vec<u8>> {
    let client_hello = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3], noise(200, seed).as_slice()].concat();
    vec![
        noise(2_000, seed),
        client_hello,
        b"GET /song.opus HTTP/1.1\r\nHost: x\r\nX-Slow: ".to_vec(),
        b"GET ".to_vec(),
        [b"GET /song.opus HTTP/1.1\r\n".as_slice(), "X: y\r\n".repeat(5_000).as_bytes()].concat(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        vec![0x16],
        Vec::new(),
        vec![0; 10_000],
    ]
}

/// Goes on until it is told to stop: connections that are broken off, that stay open, and datagrams.
fn flood(to: SocketAddr, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<usize> {
    std::thread::spawn(move || {
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a port");
        // Who stays: more than a careless server has threads for.
        let mut open = Vec::new();
        let mut tries = 0;
        for seed in 0.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            for opening in openings(seed) {
                let Ok(mut stream) = TcpStream::connect_timeout(&to, Duration::from_secs(5)) else {
                    continue;
                };
                let _ = stream.set_write_timeout(Some(Duration::from_millis(200)));
                let _ = stream.write_all(&opening);
                tries += 1;
                if open.len() < 150 {
                    open.push(stream);
                }
            }
            for size in [1, 20, 1_200, 1_500, 9_000] {
                let mut datagram = noise(size, seed);
                // Every other one looks like the first packet of a QUIC connection.
                if seed % 2 == 0 && size > 20 {
                    datagram[..6].copy_from_slice(&[0xc3, 0, 0, 0, 1, 8]);
                }
                let _ = udp.send_to(&datagram, to);
            }
            // Slow ones send a byte now and then.
            for stream in &mut open {
                let _ = stream.set_nonblocking(true);
                let _ = stream.write(b"a");
                let _ = stream.set_nonblocking(false);
            }
        }
        tries
    })
}

#[test]
fn a_transfer_completes_under_a_flood() {
    let net = Network::new();
    let file = net.path("song.opus");
    media::opus_like(&file, 3_000_000, 4200, 111).expect("a file");
    let (publisher, url) = net.publish("publisher", &file, &["--up", "1MB"]);
    let host = port_of_host(&runtime(), &net.tracker.url, "song.opus", 0xf1);
    let tracker: SocketAddr = net.tracker.listen().parse().expect("an address");
    let stop = Arc::new(AtomicBool::new(false));
    let floods: Vec<_> = [host, tracker].map(|to| flood(to, stop.clone())).into();
    let (mut get, out) = net.get("receiver", &url, &["--json"]);
    get.ends_with(0);
    assert!(same(&file, &out));
    // One who comes in the middle of it gets in.
    let (mut late, out) = net.get("late", &url, &[]);
    late.ends_with(0);
    assert!(same(&file, &out));
    stop.store(true, Ordering::Relaxed);
    let tries: Vec<usize> = floods.into_iter().map(|f| f.join().expect("a flood")).collect();
    eprintln!("connections made: {tries:?}; {}", get.stdout().trim());
    assert!(tries.iter().all(|n| *n > 50), "too little came to call it a flood: {tries:?}");
    assert_eq!(net.tracker.get("/healthz").trim(), "ok");
    for said in [publisher.stderr(), net.tracker.proc.stderr()] {
        assert!(!said.contains("panicked"), "{said}");
    }
}
