//! Waiting to the point.
//!
//! The runtime's own timers go by the millisecond, in which many turns may be due: they would come
//! in bursts, and late by half of it. The kernel's are exact, and wake the same loop.

#[cfg(target_os = "linux")]
pub(super) use linux::Timer;
#[cfg(not(target_os = "linux"))]
pub(super) use portable::Timer;

#[cfg(target_os = "linux")]
mod linux {
    use std::os::fd::OwnedFd;

    use anyhow::Context;
    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;
    use tokio::time::Instant;

    /// A timer for one waiter.
    #[derive(Debug)]
    pub(crate) struct Timer {
        timer: AsyncFd<OwnedFd>,
        /// What it is set to, so that it is set once however often the waiting is taken up again.
        set_to: Option<Instant>,
    }

    impl Timer {
        pub(crate) fn new() -> anyhow::Result<Self> {
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            let timer =
                timerfd_create(TimerfdClockId::Monotonic, flags).context("cannot make a timer")?;
            #[expect(
                deprecated,
                reason = "what replaces it is unsafe; an `OwnedFd` keeps its descriptor, as it asks"
            )]
            let timer = AsyncFd::with_interest(timer, Interest::READABLE)?;
            Ok(Self {
                timer,
                set_to: None,
            })
        }

        /// Waits until then. Dropping the future loses nothing.
        pub(crate) async fn wait_until(&mut self, at: Instant) -> anyhow::Result<()> {
            if self.set_to != Some(at) {
                self.set(at)?;
            }
            loop {
                let mut ready = self.timer.readable().await?;
                let read = ready.try_io(|timer| Ok(rustix::io::read(timer, &mut [0_u8; 8])?));
                // What was ready may be an earlier time that nobody waited for.
                if let Ok(read) = read {
                    read.context("cannot read a timer")?;
                    if Instant::now() >= at {
                        return Ok(());
                    }
                }
            }
        }

        fn set(&mut self, at: Instant) -> anyhow::Result<()> {
            let wait = at.saturating_duration_since(Instant::now());
            let mut value = Timespec::try_from(wait).context("a time too far away")?;
            // None at all would mean never.
            if value.tv_sec == 0 {
                value.tv_nsec = value.tv_nsec.max(1);
            }
            let setting = Itimerspec {
                it_interval: Timespec::default(),
                it_value: value,
            };
            timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &setting)
                .context("cannot set a timer")?;
            self.set_to = Some(at);
            Ok(())
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod portable {
    use tokio::time::Instant;

    /// A timer by the millisecond.
    #[derive(Debug)]
    pub(crate) struct Timer;

    impl Timer {
        pub(crate) fn new() -> anyhow::Result<Self> {
            Ok(Self)
        }

        pub(crate) async fn wait_until(&mut self, at: Instant) -> anyhow::Result<()> {
            tokio::time::sleep_until(at).await;
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::Instant;

    #[tokio::test]
    async fn a_timer_ends_after_its_time_however_often_it_is_taken_up() -> anyhow::Result<()> {
        let mut timer = Timer::new()?;
        let start = Instant::now();
        for after in [3, 5] {
            let at = start + Duration::from_millis(after);
            // On a busy machine the time may have come already.
            if tokio::time::timeout(Duration::ZERO, timer.wait_until(at))
                .await
                .is_err()
            {
                timer.wait_until(at).await?;
            }
            assert!(Instant::now() >= at);
        }
        Ok(())
    }
}
