//! The download limit.

use iceshare::driver::OpenOptions;
use iceshare::store::Target;
use iceshare_tests::{Network, media};
use icet::IcetUrl;
use icet::message::Intent;

use crate::attacks::stranger::{eventually, peer, runtime};

/// At a byte a second what has come already takes hours; nobody who leaves waits for that.
#[test]
fn who_leaves_does_not_wait_for_the_download_limit() {
    let net = Network::new();
    let file = net.path("song.opus");
    media::opus_like(&file, 500_000, 4200, 121).expect("a file");
    let (_publisher, url) = net.publish("publisher", &file, &[]);
    let rt = runtime();
    let url: IcetUrl = url.parse().expect("a link");
    let (peer, media) = rt.block_on(async {
        let peer = peer(&net, "receiver", 0xd1, Some(1)).await;
        let options = OpenOptions::new(Intent::Whole, Target::Own);
        let media = peer.open(&url, options).await.expect("a media");
        (peer, media)
    });
    let active = || media.progress().flows.values().map(|f| f.active).sum::<u32>();
    // What the limit lets through at once has come.
    eventually("the first pages", || (media.progress().held > 0).then_some(()));
    eventually("fetches that wait for the limit", || (active() > 0).then_some(()));
    assert!(media.progress().held < media.progress().pages / 2);
    media.leave();
    eventually("the end of all fetches", || (active() == 0).then_some(()));
    rt.block_on(peer.shutdown());
}
