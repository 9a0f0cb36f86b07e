"""MLflow's server on Postgres, as on a cluster: the database may die while a run is sent."""

import pytest

from cluster.tracking.journal import Journal
from cluster.tracking.shipper import Shipper
from tests import postgres
from tests.cluster.served import served
from tests.cluster.store import ship_to
from tests.rays import free_ports


@pytest.mark.slow
@pytest.mark.skipif(postgres.programs() is None, reason="Postgres is not installed")
def test_a_database_that_is_killed_and_comes_back_loses_nothing(folder, root):
    import mlflow

    with postgres.Postgres(*free_ports(1)) as database, served(root, database.address) as uri:
        shipper = Shipper(folder, uri, "postgres", timeout=300)
        journal = Journal(folder, "train")
        for step, up in enumerate((True, False, True)):
            if up and step:
                database.start()
            if not up:
                database.kill()
            journal.metrics({"loss": step}, step)
            assert shipper.ship_once() == up
        journal.end()
        again = ship_to(folder, uri, "postgres")
        run_id, client = again.run_ids()["train"], mlflow.MlflowClient(uri)
        assert [point.value for point in client.get_metric_history(run_id, "loss")] == [0, 1, 2]
        assert client.get_run(run_id).info.status == "FINISHED"
        assert again.repair() == {}
