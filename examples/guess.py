"""A whole environment in twenty lines. Try it: ``turnwise play examples.guess:Guess``"""

from turnwise_envs import Environment, EnvSpec, FunctionTaskSet, Observation, SplitSpec, StepInfo, StepResult


class Guess(Environment):
    spec = EnvSpec(id="guess", description="Guess a number.", max_turns=8, splits=[SplitSpec(name="train", size=100)])
    tasks = FunctionTaskSet(spec, lambda split, index: "I think of a number from 0 to 99. Which one?")

    async def reset(self, task, seed, options):
        self.secret = task.index
        return Observation.say(task.instruction)

    async def step(self, action):
        try:
            guess = int(action.text)
        except ValueError:
            return StepResult(observation=Observation.say("Write a number."), info=StepInfo(action_valid=False))
        if guess == self.secret:
            return StepResult(observation=Observation.say("Right."), reward=1.0, terminated=True)
        return StepResult(observation=Observation.say("Higher." if guess < self.secret else "Lower."))
