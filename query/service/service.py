"""What all routes share: the stores, the decoders, the metrics, and whether this is ready or ending."""

import asyncio
from dataclasses import replace

import numpy as np

from pipeline.errors import ClipsieveError
from query.hits.hits import Hits
from query.service.images.decoders import Decoders
from query.service.images.thumbs import Thumbs
from query.service.metrics import Metrics
from query.service.problems import ProblemError
from query.service.questions import Question
from query.service.sessions import Sessions
from query.service.settings import ServeSettings
from query.service.stores import ServedStore, Stores


class Service:
    """One running service."""

    def __init__(self, settings: ServeSettings) -> None:
        """Open the stores.

        Raises:
            ClipsieveError: As `Searcher.open`.
        """
        self.settings = settings
        self.metrics = Metrics()
        self.sessions = Sessions(settings)
        self.stores = Stores(settings, self.metrics)
        self.decoders = Decoders(settings)
        self.thumbs = Thumbs(self.decoders, settings.thumb_cache)
        self.is_warm = False
        self.is_ending = False
        """Set by a signal: load balancers are told, and what runs is finished."""

    async def warm_up(self) -> None:
        """Load the models, one after the other. Searches that come meanwhile wait for the model of their store.

        Raises:
            ClipsieveError: If one cannot be loaded.
        """
        for store in self.stores:
            await asyncio.to_thread(store.warm_up, self.settings.warm_images)
        self.is_warm = True
        await asyncio.to_thread(self.stores.warn_of_few_shared_images)

    async def ask(self, store: ServedStore, question: Question) -> Hits:
        """Ask one store: its model embeds what is asked, and its index finds the nearest images.

        Raises:
            ProblemError: If the question is wrong, an image cannot be decoded, or the store cannot answer.
        """
        image_vector = None if question.image is None else await self._vector_of(store, question.image)
        return await store.ask(question.request(image_vector))

    async def ask_both(self, question: Question) -> tuple[Hits, Hits]:
        """Ask the first store and then the second, each alone, so that the times can be compared.

        Ids of images that are asked for are those of the first store; they are the same images by key in the second.

        Raises:
            ProblemError: As `ask`; 404 if there is only one store.
        """
        first, second = self.both
        params = question.params
        keys = [str((await asyncio.to_thread(first.row, id_))["key"]) for id_ in params.like]
        elsewhere = replace(
            question, params=params.model_copy(update={"like": [], "like_key": [*keys, *params.like_key]})
        )
        return await self.ask(first, question), await self.ask(second, elsewhere)

    @property
    def both(self) -> tuple[ServedStore, ServedStore]:
        """The two stores.

        Raises:
            ProblemError: 404 if there is only one.
        """
        first, *others = self.stores
        if not others:
            raise ProblemError(404, "there is no second store to compare with; start `clipsieve serve STORE STORE2`")
        return first, others[0]

    async def _vector_of(self, store: ServedStore, image: bytes) -> np.ndarray:
        _, queries = store.searcher.current
        try:
            preprocess = await asyncio.to_thread(lambda: queries.preprocess)
            pixels_HWC = await self.decoders.pixels(image, preprocess)
            return await asyncio.to_thread(queries.pixels, pixels_HWC)
        except ClipsieveError as error:
            raise store.problem(error) from error
