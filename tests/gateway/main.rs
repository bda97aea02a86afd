//! What the gateway promises, checked through the real server: see README.
//!
//! One file a promise, files for what goes beyond them, and each test's name is a rule. Time stands
//! still until a test moves it.

mod harness;

mod promise_01_order;
mod promise_02_at_least_once;
mod promise_03_fence;
mod promise_04_commit_is_atomic;
mod promise_05_sticky;
mod promise_06_takeover;
mod promise_07_credit;
mod promise_08_poison;
mod promise_09_idempotent_sends;
mod promise_10_backlog;
mod promise_11_slow_is_not_lost;
mod promise_12_partials;
mod promise_all_under_chaos;

mod access;
mod addressing;
mod backup;
mod bad_input;
mod changes;
mod channel;
mod conversations;
mod create_conversation;
mod dead_letters;
mod direct_line;
mod direct_line_uploads;
mod drains;
mod ephemeral;
mod erase;
mod handover;
mod operations;
mod receipts;
mod reload;
mod scheduled;
mod scheduled_speakers;
mod selectors;
mod several_bots;
mod several_bots_reach_out;
mod state;
mod windows;
