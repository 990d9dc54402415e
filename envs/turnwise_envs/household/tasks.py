"""The task set of the household: public tasks, and the gold facts that only a scorer may see."""

from __future__ import annotations

from typing import cast

from turnwise_envs.environment import TaskSet
from turnwise_envs.household.generate import MAX_EXPERT_TURNS, Scene, scene
from turnwise_envs.household.plans import RECEPTACLES, Split
from turnwise_envs.types import Reference, Task


def scene_of(split: str, index: int) -> Scene:
    """The scene of a task whose split and index a task set has checked."""
    return scene(cast(Split, split), index)


class HouseholdTasks(TaskSet):
    """Tasks by split and index. Each is drawn when it is asked for."""

    def build(self, split: str, index: int) -> Task:
        found = scene_of(split, index)
        world = found.world
        return Task(
            env=self.spec.id,
            split=split,
            index=index,
            id=world.task_id,
            instruction=world.goal.instruction,
            difficulty=_difficulty(found),
            metadata={
                "family": world.goal.family.name,
                "room": world.room,
                "plan": world.plan,
                "receptacles": len(world.receptacles),
            },
        )

    def reference(self, task: Task) -> Reference:
        """Gold facts: the goal in types, where everything lies at the start, and the expert's number of turns."""
        found = scene_of(task.split, task.index)
        world = found.world
        return Reference(
            data={
                "goal": {
                    "family": world.goal.family.name,
                    "object": world.goal.obj,
                    "receptacle": world.goal.receptacle,
                    "lamp": world.goal.lamp,
                },
                "objects": {name: world.receptacles[r] for name, r in zip(world.objects, world.start, strict=True)},
                "expert_turns": found.expert_turns,
            }
        )


def _difficulty(found: Scene) -> float:
    """0 to 1: three quarters the expert's turns, one quarter the number of receptacles."""
    low, high = RECEPTACLES
    size = (len(found.world.receptacles) - low) / (high - low)
    return round(0.75 * found.expert_turns / MAX_EXPERT_TURNS + 0.25 * size, 3)
