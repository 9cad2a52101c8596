//! The rules by which a connection is late, one by one.

use super::*;
use crate::Config;
use crate::statistics::Statistics;

/// Ten ticks a second: head 100, body 150, handler 100, write stall 300, linger 20, keep-alive 50, stop silence 10.
fn connection() -> Connection {
    let statistics = Statistics::new(&telemetry::Registry::new());
    Connection::new(ServerState::new(Config::default(), statistics), None, false, None)
}

/// The first tick at which the connection is given an order, and the order.
fn verdict(connection: &Connection, drain: Option<Drain>) -> Option<(u32, Order)> {
    let deadlines = connection.server.deadlines;
    let begin = drain.map_or(0, |drain| drain.since);
    (begin..1000).find_map(|now| Some((now, connection.judge(now, &deadlines, drain)?)))
}

const STOP: Option<Drain> = Some(Drain { kind: DrainKind::Stop, since: 30 });
const RELOAD: Option<Drain> = Some(Drain { kind: DrainKind::Reload, since: 30 });

#[test]
fn a_connection_without_a_request_is_closed_sooner_the_less_time_there_is() {
    let fresh = connection();
    assert_eq!(verdict(&fresh, None), Some((101, Order::CloseIdle)));
    assert_eq!(verdict(&fresh, RELOAD), Some((51, Order::CloseIdle)));
    assert_eq!(verdict(&fresh, STOP), Some((41, Order::CloseIdle)));

    let waiting = connection();
    waiting.begin_request(false);
    waiting.end_request(false);
    assert_eq!(verdict(&waiting, None), Some((51, Order::CloseIdle)));
    assert_eq!(verdict(&waiting, RELOAD), Some((51, Order::CloseIdle)));
    assert_eq!(verdict(&waiting, STOP), Some((41, Order::CloseIdle)));
}

#[test]
fn a_head_is_late_whatever_else_happens() {
    let late = connection();
    late.bytes_read(10);
    for drain in [None, STOP, RELOAD] {
        assert_eq!(verdict(&late, drain), Some((101, Order::HeadLate)));
    }
}

#[test]
fn a_handler_has_its_time_from_the_last_piece_of_the_body() {
    let handling = connection();
    handling.begin_request(true);
    assert_eq!(verdict(&handling, STOP), Some((101, Order::HandlerLate)));
    handling.body_is_wanted();
    assert_eq!(verdict(&handling, None), Some((151, Order::BodyLate)));
    handling.allow_body(Duration::from_secs(60));
    assert_eq!(verdict(&handling, None), Some((601, Order::BodyLate)));
    handling.body_progress(Body::Complete);
    assert_eq!(verdict(&handling, None), Some((101, Order::HandlerLate)));
}

#[test]
fn an_answer_may_take_as_long_as_its_reader_goes_on_reading() {
    let answering = connection();
    answering.begin_request(false);
    answering.begin_answer();
    assert_eq!(verdict(&answering, STOP), None);
    answering.write_is_blocked();
    assert_eq!(verdict(&answering, None), Some((301, Order::Abort)));
    answering.write_went_on();
    assert_eq!(verdict(&answering, None), None);
    answering.end_request(true);
    assert_eq!(verdict(&answering, None), Some((21, Order::Abort)));
}

#[test]
fn an_order_that_is_not_followed_becomes_an_abort() {
    let waiting = connection();
    let deadlines = waiting.server.deadlines;
    assert_eq!(waiting.judge(120, &deadlines, None), Some(Order::CloseIdle));
    assert_eq!(waiting.judge(121, &deadlines, None), Some(Order::Abort));
}

#[test]
fn what_is_read_is_rationed_by_what_there_is_to_answer() {
    let connection = connection();
    let waker = Waker::noop();
    connection.begin_poll(waker);
    assert_eq!(connection.allowance(), READ_BURST);
    connection.bytes_read(READ_BURST);
    assert_eq!(connection.allowance(), 0);

    connection.begin_request(false);
    connection.begin_poll(waker);
    connection.bytes_read(LOOK_AHEAD);
    connection.begin_poll(waker);
    assert_eq!(connection.allowance(), 0, "the look-ahead is used up");
    connection.throttle();
    assert!(!connection.needs_another_poll());
    connection.end_request(false);
    assert!(connection.needs_another_poll(), "what was read ahead may hold a whole request");

    connection.begin_request(true);
    connection.body_is_wanted();
    for _ in 0..100 {
        connection.begin_poll(waker);
        assert_eq!(connection.allowance(), READ_BURST, "a body that is wanted may come");
        connection.bytes_read(READ_BURST);
    }
}

#[test]
fn a_head_is_too_large_only_after_the_dispatcher_has_seen_all_of_it() {
    let connection = connection();
    let waker = Waker::noop();
    for _ in 0..MAX_HEAD_BYTES / READ_BURST {
        connection.begin_poll(waker);
        assert!(!connection.head_is_too_large());
        connection.bytes_read(READ_BURST);
    }
    assert_eq!(connection.allowance(), 0);
    connection.throttle();
    assert!(connection.needs_another_poll());
    connection.begin_poll(waker);
    assert!(connection.head_is_too_large());
}
