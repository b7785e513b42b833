//! What the worker is told: orders over the lifeline, and signals.

use scoreboard::State;
use shared::contract::Order;
use sys::Signal;

use super::EventLoop;
use super::arrivals::ACCEPTS_AT_END_MAX;
use crate::contract::{Lifeline, Message};
use crate::drain::Farewell;

impl EventLoop {
    pub(super) fn on_lifeline(&mut self) {
        while let Some(message) = self.lifeline.as_mut().and_then(Lifeline::next) {
            match message {
                Message::Order(Order::ReArm) => {
                    self.shards.re_arm(&self.poll);
                    self.sweep();
                }
                Message::Order(Order::SayClose) => self.core.drain.say_close(),
                Message::Order(Order::Final) => self.core.drain.set_final(),
                Message::Order(Order::Retired(address)) => self.shards.retire(address),
                Message::End => {
                    self.core.kernel.log.warning(format_args!("The master is gone: finishing"));
                    self.core.drain.set_final();
                    self.drain();
                }
            }
        }
    }

    pub(super) fn on_signals(&mut self) {
        // An order that was given before a signal was sent is carried out before it.
        self.on_lifeline();
        let signals = self.signals.take();
        if signals.contains(Signal::SIGUSR1) {
            self.core.kernel.log.reopen();
            if let Some(host) = self.core.host() {
                host.reopen_logs();
            }
            if let Some(access) = &mut self.core.access {
                access.reopen(&self.core.kernel.log);
            }
        }
        if signals.contains(Signal::SIGTERM) {
            self.drain();
        }
        if signals.contains(Signal::SIGQUIT) || signals.contains(Signal::SIGINT) {
            if let Some(host) = self.core.host() {
                host.interrupted();
            }
            self.core.drain.quit();
        }
    }

    /// Begins to drain.
    pub(super) fn drain(&mut self) {
        match self.core.drain.begin(self.core.now()) {
            Farewell::None => return,
            Farewell::CloseListeners => {
                for shard in self.shards.retired() {
                    self.accept_some(shard, ACCEPTS_AT_END_MAX);
                }
            }
            Farewell::AcceptAllThenClose => self.sweep_for(ACCEPTS_AT_END_MAX),
        }
        self.shards.close(&self.poll);
        self.core.kernel.is_draining.set(true);
        self.core.block.set_state(State::Draining);
        for (index, connection) in self.connections.iter_mut() {
            connection.on_drain(&self.core);
            if let Some(at) = connection.deadline() {
                self.timers.schedule(index, at);
            }
        }
    }
}
