"""Whose turn it is."""

import subprocess
import sys
import time
from copy import deepcopy
from threading import Event, Thread

from tests.launch import ROOT, environment
from vqprior.app.visit import AT_ONCE, Visit


def wait_for(condition) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_turns_of_a_visitor_come_in_the_order_in_which_they_were_taken_and_never_two_at_once():
    visit, done = Visit(), []

    def act(number: int) -> None:
        with visit.turn():
            done.append(("begun", number))
            time.sleep(0.01)
            done.append(("ended", number))

    threads = [Thread(target=act, args=(number,)) for number in range(8)]
    with visit.turn():
        for number, thread in enumerate(threads):
            thread.start()
            wait_for(lambda number=number: visit.waiting == number + 1)
        assert done == []
    for thread in threads:
        thread.join()
    assert done == [(what, number) for number in range(8) for what in ("begun", "ended")]


def test_steps_end_where_the_visitor_begins_something_else():
    visit, taken = Visit(), []
    thread = Thread(target=lambda: visit.turn().__enter__())
    with visit.turn():
        for step in visit.until_waited_for(iter(range(10))):
            taken.append(step)
            if step == 3:
                thread.start()
                wait_for(lambda: visit.is_waited_for)
    thread.join()
    assert taken == [0, 1, 2, 3] and not visit.is_waited_for


def test_a_turn_that_is_left_in_the_middle_is_over():
    visit = Visit()

    def steps():
        with visit.turn():
            yield 1
            yield 2

    left = steps()
    assert next(left) == 1
    left.close()  # as Gradio does where a visitor has gone
    assert [*steps()] == [1, 2]


def test_few_visitors_are_served_at_once_and_the_others_after_them():
    go_on, served, done = Event(), [], []

    def act() -> None:
        with Visit().turn():
            served.append(1)
            go_on.wait(30)
            done.append(1)

    threads = [Thread(target=act) for _ in range(2 * AT_ONCE)]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(served) == AT_ONCE)
    time.sleep(0.1)  # by then the others would have been served
    assert len(served) == AT_ONCE and not done
    go_on.set()
    for thread in threads:
        thread.join()
    assert len(done) == 2 * AT_ONCE


def test_a_copy_is_a_new_visitor():
    visit = Visit()
    visit.opened = "a picture"
    with visit.turn(), deepcopy(visit).turn():  # which does not wait
        assert deepcopy(visit).opened is None


def test_a_program_that_ends_does_not_wait_for_a_turn_that_nobody_ends():
    """As where Ctrl-C comes while a drawing is shown and the visitor's next action waits: threads of
    the server are waited for, and a second Ctrl-C was needed."""
    code = """
from threading import Thread
from vqprior.app.visit import Visit
visit = Visit()
drawing = visit.turn()
drawing.__enter__()
Thread(target=lambda: visit.turn().__enter__()).start()
while not visit.is_waited_for:
    pass
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment(None), check=True, timeout=60)
