import worker from './index.js';

export const { active, slot, sessions } = worker;
export default worker;
