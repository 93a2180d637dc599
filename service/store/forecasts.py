"""What was foretold of studies while they ran."""

from collections.abc import Sequence
from dataclasses import asdict

from sqlalchemy import select

from service.domain.forecast import Forecast
from service.store import tables
from service.store.database import Database
from service.store.studies import keep_study, require_study

_FORECASTS = tables.forecasts.c


class SqlForecasts:
    """The port `ForecastStore`. A forecast's number is how many trials had ended."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, study_id: str, forecast: Forecast) -> None:
        same = select(_FORECASTS.number).where(_FORECASTS.study_id == study_id, _FORECASTS.number == forecast.ended)
        document = {**asdict(forecast), "at": forecast.at.isoformat(), "notes": list(forecast.notes)}
        row = {"study_id": study_id, "number": forecast.ended, "at": forecast.at, "document": document}
        with self._database.writing() as connection:
            if keep_study(connection, study_id) and connection.execute(same).first() is None:
                connection.execute(tables.forecasts.insert().values(row))

    def of(self, study_id: str) -> Sequence[Forecast]:
        statement = select(_FORECASTS.document).where(_FORECASTS.study_id == study_id).order_by(_FORECASTS.number)
        with self._database.reading() as connection:
            require_study(connection, study_id)
            return [Forecast.from_json(document) for document in connection.execute(statement).scalars()]
