//! Sessions over both carriers, as they should be and as attackers would have them.

use std::error::Error;

use icet::message::{Hello, KeyProof, Ping, Pong, Welcome};
use icet::{Identity, Limits, NetKind, TicketKey, VERSION};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::super::{DialError, Net, NetConfig, Patience, dial};
use super::*;

type Outcome = Result<(), Box<dyn Error>>;
const BOTH: [NetKind; 2] = [NetKind::Udp, NetKind::Tcp];

fn identity(seed: u8) -> Identity {
    Identity::from_seed(&[seed; 32])
}

fn hello() -> ToTracker {
    Hello {
        version: VERSION,
        agent: "test".to_owned(),
        proof: KeyProof::Channel,
        offers: Vec::new(),
        reach: Vec::new(),
        limits: Limits::default(),
        epoch: None,
        instance: None,
    }
    .into()
}

fn ping(nonce: u64) -> ToTracker {
    Ping { nonce }.into()
}

async fn pair() -> Result<(Net, Listener, String), Box<dyn Error>> {
    let listen = || vec![([127, 0, 0, 1], 0).into()];
    let net = Net::bind(NetConfig::new(listen(), identity(1))).await?;
    let listener = Listener::bind(listen(), identity(2)).await?;
    let authority = listener.local_addrs()[0].at.to_string();
    Ok((net, listener, authority))
}

fn only(kind: NetKind) -> ConnectOptions {
    ConnectOptions { only: Some(kind), ..ConnectOptions::default() }
}

#[tokio::test]
async fn a_session_goes_both_ways_over_both_carriers() -> Outcome {
    for kind in BOTH {
        let (net, mut listener, authority) = pair().await?;
        let flight = [hello(), ping(1)];
        let pin = Some(identity(2).key());
        let mut peer = connect_with(&net, &authority, pin, &flight, only(kind)).await?;
        assert_eq!((peer.peer(), peer.remote().kind), (identity(2).key(), kind));
        let mut tracker = listener.accept().await.ok_or("no session")?;
        assert_eq!((tracker.peer(), tracker.remote().kind), (identity(1).key(), kind));
        assert_eq!(tracker.recv().await?, flight[0]);
        assert_eq!(tracker.recv().await?, flight[1]);
        let welcome: ToPeer = Welcome {
            version: VERSION,
            epoch: 1,
            time: 2,
            observed: tracker.remote(),
            ticket_key: TicketKey([3; 32]),
            ack_delay: 4,
        }
        .into();
        tracker.send(&welcome).await?;
        assert_eq!(peer.recv().await?, welcome);
        // What is queued arrives before the goodbye.
        for nonce in 0..1000 {
            tracker.send(&Pong { nonce, time: 0 }.into()).await?;
        }
        tracker.close("enough").await;
        for nonce in 0..1000 {
            assert_eq!(peer.recv().await?, Pong { nonce, time: 0 }.into());
        }
        let end = peer.recv().await;
        let told = if kind == NetKind::Udp { "enough" } else { "" };
        assert!(matches!(&end, Err(RecvError::Closed { reason }) if reason == told), "{end:?}");
        peer.sender().closed().await;
        assert!(matches!(peer.send(&ping(1)).await, Err(SendError::Closed(_))));
    }
    Ok(())
}

#[tokio::test]
async fn another_trackers_key_is_refused() -> Outcome {
    for kind in BOTH {
        let (net, _listener, authority) = pair().await?;
        let pin = Some(identity(3).key());
        let error = connect_with(&net, &authority, pin, &[hello()], only(kind)).await.err();
        let got = identity(2).key();
        assert!(matches!(error, Some(ConnectError::WrongKey { got: g, .. }) if g == got), "{error:?}");
    }
    Ok(())
}

#[tokio::test]
async fn without_udp_the_session_goes_over_tcp() -> Outcome {
    let (net, listener, authority) = pair().await?;
    // Nothing answers QUIC, as behind a firewall that drops UDP.
    for port in &listener.net().inner.ports {
        port.endpoint.set_server_config(None);
    }
    let session = connect(&net, &authority, None, &[hello()]).await?;
    assert_eq!(session.remote().kind, NetKind::Tcp);
    Ok(())
}

#[tokio::test]
async fn errors_tell_why() -> Outcome {
    let (net, listener, authority) = pair().await?;
    listener.shutdown().await;
    drop(listener);
    let error = connect_with(&net, &authority, None, &[hello()], only(NetKind::Tcp)).await.err();
    assert!(matches!(error, Some(ConnectError::Unreachable { .. })), "{error:?}");
    let error = connect(&net, "no-such-host.invalid:4237", None, &[hello()]).await.err();
    assert!(matches!(error, Some(ConnectError::Resolve { .. })), "{error:?}");
    // Another program has the port: it reads, and hangs up.
    let other = TcpListener::bind("127.0.0.1:0").await?;
    let authority = other.local_addr()?.to_string();
    let hang_up = tokio::spawn(async move {
        while let Ok((mut s, _)) = other.accept().await {
            let _ = s.write_all(b"220 mail.example ESMTP\r\n").await;
        }
    });
    let error = connect_with(&net, &authority, None, &[hello()], only(NetKind::Tcp)).await.err();
    assert!(matches!(error, Some(ConnectError::Refused { .. })), "{error:?}");
    hang_up.abort();
    Ok(())
}

/// A TLS connection to the listener, to write what no session would.
async fn raw(net: &Net, listener: &Listener) -> Result<TlsStream<TcpStream>, DialError> {
    let at = listener.local_addrs()[0].at;
    let patience = Duration::from_secs(5);
    Ok(dial::dial_tls(&net.inner.credentials, at, None, icet::ALPN, patience).await?.0)
}

#[tokio::test]
async fn an_oversized_frame_ends_the_session_before_it_comes() -> Outcome {
    let (net, mut listener, _) = pair().await?;
    let mut stream = raw(&net, &listener).await?;
    stream.write_all(&(1u32 << 20 | 1).to_be_bytes()).await?;
    let mut tracker = listener.accept().await.ok_or("no session")?;
    let end = tracker.recv().await;
    assert!(matches!(end, Err(RecvError::Frame(FrameError::TooLong(_)))), "{end:?}");
    assert!(tracker.sender().is_closed());
    Ok(())
}

#[tokio::test]
async fn memory_grows_with_what_came_not_with_what_was_announced() -> Outcome {
    let (net, mut listener, _) = pair().await?;
    let mut stream = raw(&net, &listener).await?;
    stream.write_all(&(1u32 << 20).to_be_bytes()).await?;
    stream.write_all(&[0; 100]).await?;
    stream.shutdown().await?;
    let (_send, mut recv) = listener.accept().await.ok_or("no session")?.split();
    assert!(matches!(recv.recv().await, Err(RecvError::Broken(_))));
    assert!(recv.buffer.capacity() <= 4 * READ.1, "{}", recv.buffer.capacity());
    Ok(())
}

#[tokio::test]
async fn malformed_messages_are_answered_a_few_times() -> Outcome {
    let (net, mut listener, _) = pair().await?;
    let at = listener.local_addrs()[0];
    let stream = raw(&net, &listener).await?;
    // A join that is no map, then a good message, then too many bad ones.
    let bad = [0, 0, 0, 3, 0x82, 2, 0];
    let (mut read, mut write) = tokio::io::split(stream);
    write.write_all(&bad).await?;
    let mut good = Vec::new();
    ping(7).write(&mut good);
    write.write_all(&good).await?;
    let mut tracker = listener.accept().await.ok_or("no session")?;
    assert_eq!(tracker.recv().await?, ping(7), "the session survives");
    let (sender, _) = out::start::<ToTracker>(WriteHalf::Tls(write));
    let mut answers = Vec::new();
    let mut buffer = BytesMut::new();
    while answers.is_empty() {
        read.read_buf(&mut buffer).await?;
        if let Some((body, _)) = frame::split(&buffer)? {
            answers.push(ToPeer::from_body(body)?);
        }
    }
    assert!(matches!(&answers[0], ToPeer::ErrorMessage(e) if e.code == ErrorCode::BAD_MESSAGE));
    drop(sender);
    drop(read);
    let mut stream = raw(&net, &listener).await?;
    assert_eq!(at, listener.local_addrs()[0]);
    for _ in 0..=MALFORMED {
        stream.write_all(&bad).await?;
    }
    let mut tracker = listener.accept().await.ok_or("no session")?;
    assert!(matches!(tracker.recv().await, Err(RecvError::Frame(_))));
    // A body without a readable number ends it at once.
    let mut stream = raw(&net, &listener).await?;
    stream.write_all(&[0, 0, 0, 1, 0xff]).await?;
    let mut tracker = listener.accept().await.ok_or("no session")?;
    assert!(matches!(tracker.recv().await, Err(RecvError::Frame(FrameError::Malformed { kind: None, .. }))));
    Ok(())
}

/// Half a frame and then nothing, or nothing at all: the session ends when its time is up.
#[tokio::test]
async fn a_hello_that_never_ends_is_given_up() -> Outcome {
    let (net, _, _) = pair().await?;
    let patience = Patience { hello: Duration::from_millis(20), ..Patience::default() };
    let mut listener = Listener::bind_with(vec![([127, 0, 0, 1], 0).into()], identity(2), patience).await?;
    let mut stream = raw(&net, &listener).await?;
    stream.write_all(&[0, 0, 1, 0, 0x82]).await?;
    let mut tracker = listener.accept().await.ok_or("no session")?;
    let quiet = raw(&net, &listener).await?;
    let mut silent = listener.accept().await.ok_or("no session")?;
    assert!(matches!(tracker.recv().await, Err(RecvError::Slow)));
    assert!(matches!(silent.recv().await, Err(RecvError::Slow)), "no hello");
    drop((stream, quiet));
    Ok(())
}

#[tokio::test]
async fn who_does_not_read_holds_up_the_sender_not_the_memory() -> Outcome {
    for kind in BOTH {
        let (net, mut listener, authority) = pair().await?;
        let mut peer = connect_with(&net, &authority, None, &[hello()], only(kind)).await?;
        let tracker = listener.accept().await.ok_or("no session")?;
        let sender = tracker.sender();
        let mut text = ErrorMessage {
            code: ErrorCode::INTERNAL,
            request: None,
            media: None,
            text: "x".repeat(1000),
            retry: None,
        };
        let mut sent = 0u64;
        loop {
            text.request = Some(sent);
            match sender.try_send(&text.clone().into()) {
                Ok(()) => sent += 1,
                Err(SendError::Full) => break,
                Err(e) => return Err(e.into()),
            }
            assert!(sender.queued() <= (2 << 20) + 2000);
            tokio::task::yield_now().await;
        }
        // Waiting for room, it goes on as soon as the other end reads.
        text.request = Some(sent);
        let last = text.clone();
        let waiting = tokio::spawn(async move { sender.send(&last.into()).await });
        for n in 0..=sent {
            let got = peer.recv().await?;
            assert!(matches!(got, ToPeer::ErrorMessage(e) if e.request == Some(n)));
        }
        waiting.await??;
    }
    Ok(())
}

#[tokio::test]
async fn a_message_beyond_the_frame_limit_is_not_queued() -> Outcome {
    let (net, mut listener, authority) = pair().await?;
    let _peer = connect(&net, &authority, None, &[hello()]).await?;
    let tracker = listener.accept().await.ok_or("no session")?;
    let long = ErrorMessage {
        code: ErrorCode::INTERNAL,
        request: None,
        media: None,
        text: "x".repeat(icet::limits::FRAME),
        retry: None,
    };
    assert!(matches!(tracker.send(&long.into()).await, Err(SendError::TooLong(_))));
    tracker.send(&Pong { nonce: 1, time: 1 }.into()).await?;
    Ok(())
}
