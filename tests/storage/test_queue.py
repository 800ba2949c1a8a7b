"""Jobs: promised with a transaction, done at least once, by one at a time, and never forgotten."""

import threading
from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import select, update

from models.base import new_id, now
from models.errors import Conflict, Unavailable
from models.work import JOB_ATTEMPTS, Job, JobStatus, backoff
from storage import queue
from storage.database import Session, platform, transaction
from storage.queue import Kind, Released, Runner, Work
from storage.settings import settings
from tests.installed import Of, idle, make_due, runner, until


def unburied(work: Work) -> None:
    raise AssertionError("nothing was to be buried")


def kind(run: Callable[[Work], None], bury: Callable[[Work], None] = unburied) -> dict[str, Kind]:
    return {"test": Kind(run, bury)}


def ask(of: Of, subject: str | None = None) -> str:
    subject = subject or new_id()
    with transaction(of) as db:
        queue.enqueue(db, "test", subject, details={"n": 1})
    return subject


def job(subject: str) -> Job | None:
    with platform(writes=False) as db:
        return db.scalar(select(Job).where(Job.subject_id == subject))


def test_a_job_is_run_with_its_subject_and_tenant_and_then_gone(of: Of) -> None:
    seen: list[Work] = []
    with runner(kind(seen.append)):
        subject = ask(of)
        until(idle)
    assert [(work.subject_id, work.tenant_id, work.details) for work in seen] == [
        (subject, of.tenant_id, {"n": 1})
    ]
    assert job(subject) is None


def broken(db: Session) -> None:
    queue.enqueue(db, "test", new_id())
    raise ZeroDivisionError


def test_a_promise_is_the_transaction_s(of: Of) -> None:
    seen: list[str] = []
    with runner(kind(lambda work: seen.append(work.subject_id))):
        with pytest.raises(ZeroDivisionError), transaction(of) as db:
            broken(db)
        kept = ask(of)
        until(idle)
    assert seen == [kept]


def test_a_job_taken_back_is_not_run(of: Of) -> None:
    subject = ask(of)
    with transaction(of) as db:
        queue.cancel(db, "test", subject)
    assert job(subject) is None


def test_asked_for_twice_it_is_one_job_that_begins_anew(of: Of) -> None:
    subject = ask(of)
    with platform() as db:
        db.execute(update(Job).values(attempts=3, postponed=2, status=JobStatus.DEAD, error="worn out"))
    ask(of, subject)
    with platform(writes=False) as db:
        (row,) = db.scalars(select(Job)).all()
    assert (row.status, row.attempts, row.postponed, row.error) == (JobStatus.QUEUED, 0, 0, None)


def test_urgent_jobs_come_first(of: Of) -> None:
    with transaction(of) as db:
        for priority in (5, 1, 3):
            queue.enqueue(db, "test", new_id(), priority=priority, details={"priority": priority})
    seen: list[int] = []
    with runner(kind(lambda work: seen.append(work.details["priority"]))):
        until(idle)
    assert seen == [1, 3, 5]


def test_what_fails_is_tried_again_and_then_laid_to_rest(of: Of) -> None:
    tries: list[int] = []
    buried: list[str] = []

    def fail(work: Work) -> None:
        tries.append(work.attempt)
        raise ValueError("the secret words of a document")

    subject = ask(of)
    with runner(kind(fail, lambda work: buried.append(work.subject_id))):
        for attempt in range(1, JOB_ATTEMPTS + 1):
            until(lambda attempt=attempt: len(tries) == attempt)  # type: ignore[misc]  # mypy: lambda defaults
            if attempt < JOB_ATTEMPTS:
                until(lambda: (job(subject) or Job(status="")).status == JobStatus.QUEUED)
                waiting = job(subject)
                assert waiting is not None
                assert waiting.due_at > now()
                make_due()
        until(idle)
    assert (tries, buried) == ([1, 2, 3], [subject])
    left = job(subject)
    assert left is not None
    assert left.status == JobStatus.DEAD
    assert left.error is not None
    assert left.error.startswith("ValueError at ")
    assert "secret" not in left.error


def test_while_a_part_is_away_it_is_tried_for_as_long_as_it_takes(of: Of) -> None:
    tries: list[int] = []

    def away(work: Work) -> None:
        tries.append(work.attempt)
        if len(tries) <= 2 * JOB_ATTEMPTS:
            raise Unavailable("It is away.")

    subject = ask(of)
    with runner(kind(away)):
        for count in range(1, 2 * JOB_ATTEMPTS + 1):
            until(lambda count=count: (job(subject) or Job(postponed=0)).postponed == count)  # type: ignore[misc]  # mypy: lambda defaults
            make_due()
        until(idle)
    assert set(tries) == {1}


def test_waiting_grows_and_has_an_end() -> None:
    assert [backoff(n).total_seconds() for n in (1, 2, 3, 4, 5, 50)] == [2, 4, 8, 16, 30, 30]


def claimed_by(name: str) -> None:
    """As if a process that has died had taken every job."""
    with platform() as db:
        db.execute(
            update(Job).values(
                status=JobStatus.RUNNING, worker=name, attempts=1, lease_until=now() + timedelta(seconds=20)
            )
        )


def test_a_lease_that_ended_makes_the_job_anybody_s(of: Of) -> None:
    subject = ask(of)
    claimed_by("dead")
    seen: list[int] = []
    alive = Runner(kind(lambda work: seen.append(work.attempt)))
    assert alive._claim(["test"]) is None
    with platform() as db:
        db.execute(update(Job).values(lease_until=now() - timedelta(seconds=1)))
    taken = alive._claim(["test"])
    assert taken is not None
    assert (taken[0].subject_id, taken[0].attempt) == (subject, 2)


def test_a_restart_of_the_only_process_waits_for_no_lease(of: Of) -> None:
    if not settings().is_sqlite or settings().chroma_url:
        pytest.skip("here other processes may hold jobs")
    subject = ask(of)
    claimed_by("dead")
    seen: list[str] = []
    with runner(kind(lambda work: seen.append(work.subject_id))):
        until(idle)
    assert seen == [subject]


def test_a_job_that_ends_its_process_each_time_is_laid_to_rest(of: Of) -> None:
    subject = ask(of)
    with platform() as db:
        db.execute(update(Job).values(attempts=JOB_ATTEMPTS))
    buried: list[str] = []

    def never(work: Work) -> None:
        raise AssertionError("it had its chances")

    with runner(kind(never, lambda work: buried.append(work.subject_id))):
        until(idle)
    assert buried == [subject]


def test_two_runners_never_take_the_same_job(of: Of) -> None:
    subjects = {ask(of) for _ in range(20)}
    taken: list[str] = []

    def take() -> None:
        mine = Runner({})
        while claimed := mine._claim(["test"]):
            taken.append(claimed[0].subject_id)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted(subjects)


def test_a_stopped_runner_leaves_its_job_as_it_was(of: Of) -> None:
    begun = threading.Event()

    def endless(work: Work) -> None:
        begun.set()
        while True:
            work.go_on()

    subject = ask(of)
    with runner(kind(endless)):
        assert begun.wait(10)
    left = job(subject)
    assert left is not None
    assert (left.status, left.attempts, left.worker) == (JobStatus.QUEUED, 0, None)


def test_who_lost_its_lease_notices(of: Of) -> None:
    subject = ask(of)
    mine = Runner({})
    claimed = mine._claim(["test"])
    assert claimed is not None
    work = claimed[0]
    mine._renew()
    work.go_on()
    ask(of, subject)  # somebody wants it done from the beginning
    mine._renew()
    with pytest.raises(Released):
        work.go_on()
    mine._settle(work, None)
    left = job(subject)
    assert left is not None, "what is not ours any more is not ours to end"
    assert left.status == JobStatus.QUEUED


def test_renewal_puts_the_end_of_the_lease_off(of: Of) -> None:
    subject = ask(of)
    mine = Runner({})
    assert mine._claim(["test"])
    with platform() as db:
        db.execute(update(Job).values(lease_until=now()))
    mine._renew()
    renewed = job(subject)
    assert renewed is not None
    assert renewed.lease_until is not None
    assert renewed.lease_until > now()


def test_a_second_process_of_an_embedded_installation_is_refused(of: Of) -> None:
    if settings().chroma_url:
        pytest.skip("here several processes may run jobs")
    with runner(kind(lambda work: None)) as first:
        until(lambda: first._lock is not None)
        with pytest.raises(Conflict, match="Another process"):
            Runner(kind(lambda work: None)).start(patient=False)


def test_a_slow_lane_keeps_no_quick_job_waiting(of: Of) -> None:
    go_on, seen = threading.Event(), threading.Event()

    def wait(work: Work) -> None:
        go_on.wait(30)

    kinds = {
        "slow": Kind(wait, unburied, lane="slow"),
        "test": Kind(lambda work: seen.set(), unburied),
    }
    with transaction(of) as db:
        queue.enqueue(db, "slow", new_id())
    with runner(kinds):
        ask(of)
        assert seen.wait(10)
        go_on.set()
