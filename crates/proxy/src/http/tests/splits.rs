//! What is parsed does not depend on how the bytes arrive, and no bytes make it panic.

use proptest::prelude::*;

use super::*;

fn run<F: Future>(future: F) -> F::Output {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    LocalSet::new().block_on(&runtime, future)
}

/// As [`answer`], with the input cut at `cuts` and a turn of the scheduler at each.
async fn answer_in_pieces(input: &[u8], cuts: &[usize]) -> String {
    let (mut client, task, _trigger) = start(1 << 20, ServerSettings::default(), describe);
    let mut at = 0;
    for cut in cuts {
        let next = (at + cut).min(input.len());
        client.write_all(&input[at..next]).await.unwrap();
        at = next;
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
    }
    let _ = client.write_all(&input[at..]).await;
    let mut output = Vec::new();
    let _ = client.read_to_end(&mut output).await;
    task.await.unwrap();
    String::from_utf8_lossy(&output).into_owned()
}

const CONVERSATION: &[u8] = b"\r\nGET /a HTTP/1.1\r\nHost: a\r\nX-Long: abc\r\n\r\n\
    POST /b HTTP/1.1\r\nHost: b\r\nContent-Length: 11\r\n\r\nhello world\
    POST /c HTTP/1.1\r\nHost: c\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\nA\r\n0123456789\r\n0\r\nT: u\r\n\r\n\
    DELETE /d HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn the_answers_do_not_depend_on_how_the_bytes_are_cut(cuts in prop::collection::vec(1usize..40, 0..60)) {
        let output = run(answer_in_pieces(CONVERSATION, &cuts));
        prop_assert_eq!(statuses(&output), [200, 200, 200, 200]);
        for part in ["[GET /a a 0]", "[POST /b b 11]", "[POST /c c 15]", "[DELETE /d d 0]"] {
            prop_assert!(output.contains(part), "{}", output);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(input in prop::collection::vec(any::<u8>(), 0..600)) {
        run(answer_in_pieces(&input, &[7, 50]));
    }

    #[test]
    fn a_damaged_request_never_panics(
        damage in prop::collection::vec((0usize..300, any::<u8>()), 1..6),
        cuts in prop::collection::vec(1usize..100, 0..4),
    ) {
        let mut input = CONVERSATION.to_vec();
        for (at, byte) in damage {
            let len = input.len();
            input[at % len] = byte;
        }
        run(answer_in_pieces(&input, &cuts));
    }

    #[test]
    fn arbitrary_responses_never_panic(input in prop::collection::vec(any::<u8>(), 0..400), prefix in any::<bool>()) {
        run(async {
            let (client, mut far) = client_on(1 << 16);
            if prefix {
                far.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
            }
            far.write_all(&input).await.unwrap();
            far.shutdown().await.unwrap();
            if let Ok(response) = client.send(get("/")).await {
                let _ = response.into_body().collect(1 << 20).await;
            }
        });
    }
}
